// Windows: which intensities are shown from black to white.

/** Named windows of CT in HU, as [centre, width]. */
export const CT_WINDOWS = [
  { name: "soft tissue", centre: 40, width: 400 },
  { name: "lung", centre: -600, width: 1500 },
  { name: "bone", centre: 500, width: 2000 },
  { name: "brain", centre: 40, width: 80 },
  { name: "liver", centre: 60, width: 150 },
  { name: "mediastinum", centre: 50, width: 350 },
];

const MOST_SAMPLES = 200_000;

/** What lies below the given percents of the values, from an even sample of them. */
export function percentiles(values, percents) {
  const step = Math.max(1, Math.floor(values.length / MOST_SAMPLES));
  const sample = [];
  for (let index = 0; index < values.length; index += step) {
    if (Number.isFinite(values[index])) {
      sample.push(values[index]);
    }
  }
  sample.sort((a, b) => a - b);
  return percents.map((percent) => sample[Math.round(((sample.length - 1) * percent) / 100)] ?? 0);
}

/** The windows that an image can have: named ones where values are HU, else the 1st to 99th percentile and the whole range. */
export function windowsOf(values, isCt, named) {
  if (isCt) {
    const windows = named?.length ? named : CT_WINDOWS;
    return windows.map(({ name, centre, width }) => ({ name, low: centre - width / 2, high: centre + width / 2 }));
  }
  const [least, low, high, most] = percentiles(values, [0, 1, 99, 100]);
  return [
    { name: "percentiles", low, high: high > low ? high : low + 1 },
    { name: "whole range", low: least, high: most > least ? most : least + 1 },
  ];
}
