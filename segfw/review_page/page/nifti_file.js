// Reads NIfTI-1 as the server writes it: one volume, little-endian, x fastest.

const HEADER_BYTES = 348;
const ARRAYS = { 2: Uint8Array, 4: Int16Array, 8: Int32Array, 16: Float32Array, 64: Float64Array, 256: Int8Array, 512: Uint16Array, 768: Uint32Array };
const RGB24 = 128;

/** Dims, spacing and values of a NIfTI file that is no longer compressed. */
export function readNifti(buffer) {
  const view = new DataView(buffer);
  if (buffer.byteLength < HEADER_BYTES || view.getInt32(0, true) !== HEADER_BYTES) {
    throw new Error("this is no NIfTI-1 file of this kind of machine");
  }
  const dims = [1, 2, 3].map((axis) => Math.max(1, view.getInt16(40 + 2 * axis, true)));
  const spacing_mm = [1, 2, 3].map((axis) => Math.abs(view.getFloat32(76 + 4 * axis, true)) || 1);
  const type = view.getInt16(70, true);
  const offset = view.getFloat32(108, true);
  const slope = view.getFloat32(112, true) || 1;
  const intercept = view.getFloat32(116, true) || 0;
  const voxels = dims[0] * dims[1] * dims[2];
  const isColour = type === RGB24;
  const Values = isColour ? Uint8Array : ARRAYS[type];
  if (Values === undefined) {
    throw new Error(`voxels of NIfTI type ${type} are not shown here`);
  }
  const count = isColour ? 3 * voxels : voxels;
  if (buffer.byteLength < offset + count * Values.BYTES_PER_ELEMENT) {
    throw new Error("the file is shorter than its header says");
  }
  const isAligned = offset % Values.BYTES_PER_ELEMENT === 0;
  const bytes = isAligned ? buffer : buffer.slice(offset);
  const values = new Values(bytes, isAligned ? offset : 0, count);
  return { dims, spacing_mm, values, slope, intercept, isColour };
}
