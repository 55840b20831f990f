// Compressed bytes, by the browser's own streams.

export async function gzip(bytes) {
  return through(bytes, new CompressionStream("gzip"));
}

/** The bytes without compression; bytes that are not compressed are handed back as they are. */
export async function gunzipIfNeeded(bytes) {
  const isGzip = bytes.length > 2 && bytes[0] === 0x1f && bytes[1] === 0x8b;
  return isGzip ? through(bytes, new DecompressionStream("gzip")) : bytes;
}

async function through(bytes, stream) {
  const answer = new Response(new Blob([bytes]).stream().pipeThrough(stream));
  return new Uint8Array(await answer.arrayBuffer());
}
