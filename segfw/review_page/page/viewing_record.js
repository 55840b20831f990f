// Which slices were on the screen, of each plane of the served grid.

import { PLANE_NAMES } from "./planes.js";

export class ViewingRecord {
  constructor() {
    this.all = new Map(PLANE_NAMES.map((plane) => [plane, new Set()]));
    this.unsent = new Map(PLANE_NAMES.map((plane) => [plane, new Set()]));
    this.isQualityShown = false;
    this.isOverlayShown = false;
  }

  /** What a picture that was drawn had on it or beside it; what was seen once stays seen. */
  show({ quality, overlay }) {
    this.isQualityShown ||= quality;
    this.isOverlayShown ||= overlay;
  }

  see(plane, slice) {
    if (!this.all.get(plane).has(slice)) {
      this.all.get(plane).add(slice);
      this.unsent.get(plane).add(slice);
    }
  }

  /** Slices that were seen for the first time since this was last asked, by the name of the plane. */
  take() {
    const taken = {};
    for (const plane of PLANE_NAMES) {
      const slices = [...this.unsent.get(plane)];
      if (slices.length > 0) {
        taken[plane] = slices.sort((a, b) => a - b);
      }
      this.unsent.get(plane).clear();
    }
    return taken;
  }

  /** What was taken could not be sent: it is handed out again the next time. */
  giveBack(taken) {
    for (const [plane, slices] of Object.entries(taken)) {
      slices.forEach((slice) => this.unsent.get(plane).add(slice));
    }
  }

  /** Share of some slices of a plane that were seen; 1 if there are none. */
  shareSeen(plane, slices) {
    const seen = slices.filter((slice) => this.all.get(plane).has(slice)).length;
    return slices.length === 0 ? 1 : seen / slices.length;
  }
}
