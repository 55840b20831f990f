// Colours that people with any colour vision tell apart (Okabe and Ito), with the style of the line as a second cue.

export const OKABE_ITO = [
  [230, 159, 0],
  [86, 180, 233],
  [0, 158, 115],
  [240, 228, 66],
  [0, 114, 178],
  [213, 94, 0],
  [204, 121, 167],
];

/** Lengths of dash and gap in pixels; the first is a line without gaps. */
export const LINE_STYLES = [[], [6, 3], [2, 3], [9, 3, 2, 3]];

/** Colour of the structure with this index (from 1). */
export function colourOf(index) {
  return OKABE_ITO[(index - 1) % OKABE_ITO.length];
}

/** Style of its line: it changes when the colours begin again, so that 28 structures differ. */
export function lineStyleOf(index) {
  return LINE_STYLES[Math.floor((index - 1) / OKABE_ITO.length) % LINE_STYLES.length];
}

export function cssColour(rgb, alpha = 1) {
  return `rgba(${rgb[0]}, ${rgb[1]}, ${rgb[2]}, ${alpha})`;
}
