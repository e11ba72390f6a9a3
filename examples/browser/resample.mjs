// Resizing as Pillow does it, to the last bit: a filter that widens with the shrinking, first along rows and then along
// columns, in integers of 22 fractional bits with a rounding to 8 bits between. A canvas scales in a way that each browser
// chooses for itself, and a network sees the difference.

const BITS = 22;
const CUBIC = -0.5; // the slope at 1 that Pillow's bicubic filter takes

/** How far each filter reaches, in source pixels when nothing is shrunk, and its height at a distance from its centre. */
const FILTERS = {
  bilinear: { reach: 1, height: (x) => Math.max(0, 1 - x) },
  bicubic: {
    reach: 2,
    height: (x) => x < 1 ? ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1 : x < 2 ? (((x - 5) * x + 8) * x - 4) * CUBIC : 0,
  },
};

/** @param {{data: Uint8ClampedArray, width: number, height: number}} image RGBA as a canvas gives it
 *  @returns {{data: Uint8ClampedArray, width: number, height: number}} RGB */
export function resize(image, width, height, interpolation) {
  const filter = FILTERS[interpolation];
  if (!filter) throw new Error(`the file asks for ${interpolation} interpolation, which this page doesn't know`);
  return alongColumns(alongRows(image, width, filter), height, filter);
}

/** @returns {{data: Uint8ClampedArray, width: number, height: number}} the RGB pixels of a square in the middle */
export function cropCentre(image, width, height) {
  const left = Math.floor((image.width - width) / 2), top = Math.floor((image.height - height) / 2);
  const data = new Uint8ClampedArray(width * height * 3);
  for (let y = 0; y < height; y++) {
    const begin = ((y + top) * image.width + left) * 3;
    data.set(image.data.subarray(begin, begin + width * 3), y * width * 3);
  }
  return { data, width, height };
}

/** For each pixel of the result: where its source pixels begin, and their weights in fixed point. */
function taps(from, to, filter) {
  const scale = from / to, widening = Math.max(scale, 1), reach = filter.reach * widening;
  return Array.from({ length: to }, (_, at) => {
    const centre = (at + 0.5) * scale;
    const begin = Math.max(Math.trunc(centre - reach + 0.5), 0);
    const end = Math.min(Math.trunc(centre + reach + 0.5), from);
    const shares = Array.from({ length: end - begin }, (_, i) =>
      filter.height(Math.abs((i + begin - centre + 0.5) * (1 / widening))));
    const whole = shares.reduce((sum, share) => sum + share, 0);
    return { begin, weights: shares.map((share) => fixed(share / whole)) };
  });
}

const fixed = (share) => Math.trunc(share * 2 ** BITS + (share < 0 ? -0.5 : 0.5));
const rounded = (sum) => Math.floor((sum + 2 ** (BITS - 1)) / 2 ** BITS); // a clamped array does the rest

function alongRows({ data, width, height }, to, filter) {
  const channels = data.length / (width * height);
  const result = new Uint8ClampedArray(to * height * 3);
  taps(width, to, filter).forEach(({ begin, weights }, x) => {
    for (let y = 0; y < height; y++)
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        weights.forEach((weight, i) => (sum += weight * data[(y * width + begin + i) * channels + c]));
        result[(y * to + x) * 3 + c] = rounded(sum);
      }
  });
  return { data: result, width: to, height };
}

function alongColumns({ data, width, height }, to, filter) {
  const stride = width * 3;
  const result = new Uint8ClampedArray(stride * to);
  taps(height, to, filter).forEach(({ begin, weights }, y) => {
    for (let x = 0; x < stride; x++) {
      let sum = 0;
      weights.forEach((weight, i) => (sum += weight * data[(begin + i) * stride + x]));
      result[y * stride + x] = rounded(sum);
    }
  });
  return { data: result, width, height: to };
}
