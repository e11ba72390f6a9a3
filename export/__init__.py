"""What leaves for a device: conversion to on-device formats. Empty until its first target is written."""
