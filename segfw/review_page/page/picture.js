// What every kind of picture has: what is shown, where the planes cross, where the pictures lie, and what is drawn over them.

import { Overlay } from "./overlay.js";
import { PLANES, PLANE_NAMES, clampIndex, placeIn } from "./planes.js";

const GAP = 2; // pixels between two pictures
export const MASK_MODES = ["contour", "fill", "both"];
export const LAYOUTS = ["big", "grid", "one"];

function firstView() {
  return {
    plane: "axial",
    layout: "big",
    isRadiological: true,
    maskMode: "contour",
    opacity: 0.4,
    hidden: new Set(),
    isMaskHidden: false,
    alone: null,
    selected: null,
    isDoubtShown: false,
    cursor: null,
    box: null,
    clicked: null,
    strokePlane: null,
  };
}

export class Picture {
  /**
   * @param {HTMLElement} host is filled
   * @param {{onSlices: function, onFrame: function, onLost: function}} told of what is shown
   * @param {object} words names of the planes
   */
  constructor(host, told, words) {
    this.told = told;
    this.words = words;
    this.canvas = document.createElement("canvas");
    this.canvas.className = "picture";
    this.over = document.createElement("canvas");
    this.over.className = "over";
    this.overlay = new Overlay(this.over);
    this.tiles = [];
    this.view = firstView();
    this.voxel = [0, 0, 0];
    this.wanted = { scene: false, overlay: false };
    this.framesDrawn = 0;
    this.hasRender = false;
    this.resizeObserver = new ResizeObserver(() => this.resize());
    this.moveTo(host);
  }

  /** Stands in another part of the page from now on. */
  moveTo(host) {
    this.resizeObserver.disconnect();
    host.replaceChildren(this.canvas, this.over);
    this.host = host;
    this.resizeObserver.observe(host);
  }

  /** Changes what is shown: any field of ``view``. */
  set(changes) {
    Object.assign(this.view, changes);
    this.invalidate();
  }

  /** The voxel at which the three planes cross. */
  setVoxel(voxel) {
    this.voxel = voxel.map((index, axis) => clampIndex(Math.round(index), this.nifti.dims[axis]));
    this.invalidatePlanes();
  }

  stepSlice(plane, step) {
    const axis = PLANES[plane].through;
    const voxel = [...this.voxel];
    voxel[axis] += step;
    this.setVoxel(voxel);
  }

  /** Forgets a case, so that the next one begins as the first did. */
  forget() {
    this.view = firstView();
    this.tiles = [];
    this.laidOut = null;
    this.nifti = null;
    this.mask = null;
    this.overlay.forgetOutlines();
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.max(1, Math.round(this.host.clientWidth * ratio));
    const height = Math.max(1, Math.round(this.host.clientHeight * ratio));
    for (const canvas of [this.canvas, this.over]) {
      canvas.width = width;
      canvas.height = height;
    }
    this.laidOut = null; // what was drawn is gone
    this.ratio = ratio;
    this.invalidate();
  }

  /** Draws soon, once for all that was changed until then. */
  invalidate() {
    this.isRenderOld = true;
    this.invalidatePlanes();
  }

  /** The same where only slices change: the picture in three dimensions takes longest, and stays as it is. */
  invalidatePlanes() {
    if (!this.wanted.scene) {
      this.wanted.scene = true;
      requestAnimationFrame(() => this.draw());
    }
  }

  invalidateOverlay() {
    if (!this.wanted.scene && !this.wanted.overlay) {
      this.wanted.overlay = true;
      requestAnimationFrame(() => this.draw());
    }
  }

  draw() {
    const isScene = this.wanted.scene;
    this.wanted = { scene: false, overlay: false };
    if (this.isLost || !this.nifti || this.canvas.width < 8 || this.canvas.height < 8) {
      return;
    }
    if (isScene) {
      this.drawScene();
    }
    this.overlay.draw(this);
    this.framesDrawn += 1;
    this.told.onFrame();
  }

  isShown(index) {
    const { alone, hidden } = this.view;
    return alone === null ? !hidden.has(index) : alone.has(index);
  }

  /** Where each picture lies: rectangles of whole pixels. */
  layout() {
    const { width, height } = this.canvas;
    const { plane, layout } = this.view;
    if (this.isFlat) {
      return [{ plane: "axial", rectangle: [0, 0, width, height] }];
    }
    if (layout === "one" || width < 520 * this.ratio) {
      return [{ plane, rectangle: [0, 0, width, height] }];
    }
    if (layout === "grid") {
      const left = Math.floor((width - GAP) / 2);
      const top = Math.floor((height - GAP) / 2);
      const right = width - left - GAP;
      const bottom = height - top - GAP;
      return [
        { plane: "axial", rectangle: [0, 0, left, top] },
        { plane: "sagittal", rectangle: [left + GAP, 0, right, top] },
        { plane: "coronal", rectangle: [0, top + GAP, left, bottom] },
        ...(this.hasRender ? [{ plane: "render", rectangle: [left + GAP, top + GAP, right, bottom] }] : []),
      ];
    }
    const side = Math.floor(Math.min(width * 0.34, (height - 2 * GAP) / 2));
    const others = [...PLANE_NAMES.filter((other) => other !== plane), ...(this.hasRender ? ["render"] : [])];
    const share = Math.floor((height - (others.length - 1) * GAP) / others.length);
    const small = others.map((other, at) => {
      const top = at * (share + GAP);
      return { plane: other, rectangle: [width - side, top, side, at === others.length - 1 ? height - top : share] };
    });
    return [{ plane, rectangle: [0, 0, width - side - GAP, height] }, ...small];
  }

  /** The picture under a position of the pointer (in CSS pixels of the page) and the voxel there; null outside. */
  at(clientX, clientY) {
    const frame = this.over.getBoundingClientRect();
    const x = (clientX - frame.left) * this.ratio;
    const y = (clientY - frame.top) * this.ratio;
    const tile = this.tiles.find((each) => x >= each.left && y >= each.top && x < each.left + each.width && y < each.top + each.height);
    if (tile === undefined) {
      return null;
    }
    if (tile.plane === "render") {
      return { tile, plane: "render", voxel: null };
    }
    const { across, up, through } = PLANES[tile.plane];
    const place = [0, 0, 0];
    place[across] = mix(tile.acrossEdges, (x - tile.left) / tile.width);
    place[up] = mix(tile.upEdges, 1 - (y - tile.top) / tile.height);
    place[through] = this.voxel[through];
    const voxel = place.map(Math.floor);
    const isInside = voxel.every((index, axis) => index >= 0 && index < this.nifti.dims[axis]);
    return { tile, plane: tile.plane, voxel, isInside };
  }

  /** The middle of a voxel in CSS pixels of the page, in the picture of a plane; null where that is not shown. */
  pageplaceOf(plane, voxel) {
    const tile = this.tiles.find((each) => each.plane === plane);
    if (tile === undefined) {
      return null;
    }
    const { across, up } = PLANES[plane];
    const [x, y] = placeIn(tile, voxel[across] + 0.5, voxel[up] + 0.5);
    const frame = this.over.getBoundingClientRect();
    return { x: frame.left + x / this.ratio, y: frame.top + y / this.ratio };
  }
}

function mix([from, to], share) {
  return from + (to - from) * share;
}
