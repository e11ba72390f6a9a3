// What an ONNX file says about itself. onnxruntime-web doesn't hand it out, so it is read from the file: a protocol buffer
// whose field 14 (metadata_props of ModelProto) repeats messages of a key (field 1) and a value (field 2).

const METADATA_PROPS = 14;

/** @param {Uint8Array} bytes a whole ONNX file
 *  @returns {Record<string, string>} its metadata */
export function readMetadata(bytes) {
  const decoder = new TextDecoder();
  const found = {};
  for (const [field, content] of fields(bytes)) {
    if (field !== METADATA_PROPS) continue;
    const entry = new Map(fields(content));
    found[decoder.decode(entry.get(1))] = decoder.decode(entry.get(2));
  }
  return found;
}

/** The length-delimited fields of a message, as [number, bytes]; all others are stepped over. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      if (at >= bytes.length) throw new Error("the file ends in the middle of a field: it is no whole ONNX model");
      const byte = bytes[at++];
      value += (byte & 127) * factor; // not shifted: lengths may pass 2^31
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    switch (tag & 7) {
      case 0: varint(); break;
      case 1: at += 8; break;
      case 5: at += 4; break;
      case 2: {
        const size = varint();
        if (at + size > bytes.length) throw new Error("a field is longer than the file: it is no whole ONNX model");
        yield [Math.floor(tag / 8), bytes.subarray(at, at + size)];
        at += size;
        break;
      }
      default: throw new Error("this is no ONNX model");
    }
  }
}
