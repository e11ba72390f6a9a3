// The page: loads what index.json lists, runs it on the picture, and compares with what Python's ONNX Runtime made of it.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";
import { readMetadata } from "./metadata.mjs";
import { likeliest, preprocess } from "./preprocess.mjs";

const TOLERANCE = 1e-4; // of the largest logit: float32 in another order of sums
const RUNS = 5;
const query = new URLSearchParams(location.search);
const models = query.get("models") ?? "models";
const $ = (selector, from = document) => from.querySelector(selector);

ort.env.wasm.wasmPaths = new URL("node_modules/onnxruntime-web/dist/", location.href).href;

/** Read a file and open it; the metadata comes from the same bytes. */
async function open({ file, expected }) {
  const answer = await fetch(`${models}/${file}`);
  if (!answer.ok) throw new Error(`${file} is not there: run prepare.py`);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  const metadata = readMetadata(bytes);
  const begin = performance.now();
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  const card = $("#card").content.cloneNode(true).firstElementChild;
  $("h2", card).textContent = metadata.model ?? file;
  $("#models").append(card);
  return { file, expected, metadata, session, card, megabytes: bytes.length / 1e6, load_ms: performance.now() - begin };
}

/** Run a model on a picture some times; the median, since the first run allocates. */
async function run(model, picture) {
  const { data, dims } = preprocess(picture, model.metadata);
  const times = [];
  let logits;
  for (let i = 0; i < RUNS; i++) {
    const begin = performance.now();
    const results = await model.session.run({ [model.session.inputNames[0]]: new ort.Tensor("float32", data, dims) });
    times.push(performance.now() - begin);
    logits = results[model.session.outputNames[0]].data;
  }
  times.sort((a, b) => a - b);
  return { logits, median_ms: times[RUNS >> 1] };
}

/** Largest difference, and whether it is rounding. */
function compare(logits, expected) {
  if (logits.length !== expected.length) return { difference: Infinity, scale: 0, equal: false };
  let difference = 0, scale = 0;
  expected.forEach((value, i) => {
    const gap = Math.abs(value - logits[i]);
    difference = Number.isNaN(gap) ? Infinity : Math.max(difference, gap);
    scale = Math.max(scale, Math.abs(value));
  });
  return { difference, scale, equal: difference <= TOLERANCE * scale };
}

function show(model, { logits, median_ms }, verdict) {
  const { metadata, card } = model;
  const labels = metadata.labels ? JSON.parse(metadata.labels) : null;
  const threads = `${ort.env.wasm.numThreads} thread${ort.env.wasm.numThreads === 1 ? "" : "s"}`;
  $(".facts", card).textContent =
    `${model.megabytes.toFixed(1)} MB · loaded in ${model.load_ms.toFixed(0)} ms · ${median_ms.toFixed(1)} ms a run, ${threads}`;
  $(".classes", card).replaceChildren(...likeliest(logits).map(({ index, share }) => {
    const row = document.createElement("li"), name = document.createElement("span"), value = document.createElement("span");
    row.style.setProperty("--share", share);
    name.textContent = labels?.[index] ?? `class ${index}`;
    value.textContent = `${(share * 100).toFixed(1)} %`;
    row.append(name, value);
    return row;
  }));
  const words = $(".verdict", card);
  words.className = `verdict ${verdict ? (verdict.equal ? "good" : "bad") : ""}`;
  words.textContent = !verdict ? "A picture of your own: nothing to compare with." :
    `${verdict.equal ? "Equal to" : "Differs from"} Python's ONNX Runtime: ${verdict.difference.toExponential(1)} at most, ` +
    `of ${verdict.scale.toFixed(2)}.`;
  $(".note", card).hidden = metadata.weights !== "random";
}

/** Draw a picture and give its pixels. */
async function look(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const canvas = $("#picture");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(bitmap, 0, 0);
  return pen.getImageData(0, 0, bitmap.width, bitmap.height);
}

function say(words, bad = false) {
  $("#status").textContent = words;
  $("#status").classList.toggle("bad", bad);
}

/** All models on a picture, one after the other. */
async function runAll(opened, picture, compared) {
  $("#again").disabled = true;
  const results = [];
  for (const model of opened) {
    say(`Running ${model.metadata.model ?? model.file}…`);
    const result = await run(model, picture);
    const verdict = compared ? compare(result.logits, model.expected) : null;
    show(model, result, verdict);
    results.push({ file: model.file, logits: Array.from(result.logits), median_ms: result.median_ms, metadata: model.metadata, ...verdict });
  }
  say(`onnxruntime-web ${ort.env.versions.web}, WebAssembly`);
  $("#again").disabled = false;
  return results;
}

async function main() {
  const [index, scene] = await Promise.all([fetch(`${models}/index.json`), fetch("scene.png")]);
  if (!index.ok) throw new Error("There are no models: run prepare.py, which exports them.");
  let picture = await look(await scene.blob()), compared = true, busy = Promise.resolve();
  const opened = [];
  for (const entry of (await index.json()).models) {
    say(`Loading ${entry.file}…`);
    opened.push(await open(entry));
  }
  const queue = () => (busy = busy.catch(() => {}).then(() => runAll(opened, picture, compared)));
  const take = async (file) => {
    if (!file) return;
    const pixels = await look(file).catch(() => null);
    if (!pixels) return say(`${file.name} is no picture that this browser reads`, true);
    [picture, compared] = [pixels, false];
    await queue().catch(fail);
  };
  $("#again").addEventListener("click", () => queue().catch(fail));
  $("#file").addEventListener("change", (event) => take(event.target.files[0]));
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
  addEventListener("dragleave", () => document.body.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    take(event.dataTransfer.files[0]);
  });
  return { results: await queue(), threads: ort.env.wasm.numThreads, isolated: crossOriginIsolated };
}

function fail(error) {
  say(error.message, true);
  return { error: error.message };
}

const report = await main().catch(fail);
document.documentElement.dataset.done = "error" in report ? "failed" : "yes";
// A test asks for the results by ?report=PATH and waits for them there.
if (query.has("report")) await fetch(query.get("report"), { method: "POST", body: JSON.stringify(report) });
