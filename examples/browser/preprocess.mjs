// From a picture to the input that a file asks for in its metadata: resized, cut, normalised, channels first.

import { cropCentre, resize } from "./resample.mjs";

/** @param {ImageData} picture
 *  @param {Record<string, string>} metadata of the ONNX file
 *  @returns {{data: Float32Array, dims: number[]}} */
export function preprocess(picture, metadata) {
  for (const key of ["resize", "crop", "interpolation", "input_range", "mean", "std"])
    if (!(key in metadata)) throw new Error(`the file does not say how pictures become inputs: it has no ${key}`);
  const crop = Number(metadata.crop);
  const shorter = Math.min(picture.width, picture.height);
  const [width, height] = [picture.width, picture.height].map((side) => Math.floor((Number(metadata.resize) * side) / shorter));
  const { data } = cropCentre(resize(picture, width, height, metadata.interpolation), crop, crop);
  const [low, high] = JSON.parse(metadata.input_range);
  const mean = JSON.parse(metadata.mean), std = JSON.parse(metadata.std);
  const plane = crop * crop, normalised = new Float32Array(3 * plane);
  for (let c = 0; c < 3; c++)
    for (let i = 0; i < plane; i++)
      normalised[c * plane + i] = ((data[i * 3 + c] / 255) * (high - low) + low - mean[c]) / std[c];
  return { data: normalised, dims: [1, 3, crop, crop] };
}

/** @param {Float32Array} logits
 *  @returns {{index: number, share: number}[]} the likeliest classes, with their softmax */
export function likeliest(logits, count = 5) {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const shares = Array.from(logits, (value) => Math.exp(value - largest));
  const whole = shares.reduce((a, b) => a + b);
  return shares.map((share, index) => ({ index, share: share / whole })).sort((a, b) => b.share - a.share).slice(0, count);
}
