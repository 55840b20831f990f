// What is drawn over the pictures: outlines, letters of the patient's sides, crossing lines, the brush, a scale.

import { outlines } from "./contours.js";
import { colourOf, cssColour, lineStyleOf } from "./palette.js";
import { PLANES, edgeLetters, placeIn, sliceValues } from "./planes.js";

const INK = "#ffffff";
const HALO = "rgba(0, 0, 0, 0.75)";
const SCALES_MM = [100, 50, 20, 10, 5, 2, 1];

export class Overlay {
  constructor(canvas) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
    this.known = new Map();
  }

  forgetOutlines() {
    this.known.clear();
  }

  draw(viewer) {
    const { pen, canvas } = this;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    for (const tile of viewer.tiles) {
      pen.save();
      pen.beginPath();
      pen.rect(...tile.frame);
      pen.clip();
      if (tile.plane === "render") {
        this.#name(tile, viewer, viewer.words.render);
      } else {
        this.#plane(tile, viewer);
      }
      pen.restore();
    }
  }

  #plane(tile, viewer) {
    const { view } = viewer;
    const { pen } = this;
    pen.save();
    pen.beginPath();
    pen.rect(tile.left, tile.top, tile.width, tile.height);
    pen.clip();
    if (viewer.mask && !view.isMaskHidden && view.maskMode !== "fill") {
      this.#outlines(tile, viewer);
    }
    if (view.box !== null) {
      this.#box(tile, viewer, view.box, []);
    }
    if (view.clicked !== null) {
      this.#clicked(tile, viewer);
    }
    if (!viewer.isFlat || view.cursor === null) {
      this.#crossing(tile, viewer);
    }
    if (view.cursor !== null && view.cursor.plane === tile.plane) {
      this.#brush(tile, viewer);
    }
    pen.restore();
    if (viewer.about.hasLetters) {
      this.#letters(tile, viewer);
    }
    const slice = viewer.voxel[PLANES[tile.plane].through] + 1;
    const count = viewer.nifti.dims[PLANES[tile.plane].through];
    const isActive = tile.plane === view.plane && viewer.tiles.length > 1;
    this.#name(tile, viewer, viewer.isFlat ? "" : `${viewer.words[tile.plane]} ${slice}/${count}`, isActive);
    this.#scale(tile, viewer);
  }

  #outlines(tile, viewer) {
    const { pen } = this;
    const { through } = PLANES[tile.plane];
    const key = `${tile.plane} ${viewer.voxel[through]}`;
    if (!this.known.has(key)) {
      const slice = sliceValues(viewer.mask, viewer.nifti.dims, tile.plane, viewer.voxel[through]);
      this.known.set(key, outlines(slice.values, slice.width, slice.height));
    }
    pen.lineJoin = "round";
    for (const [label, lines] of this.known.get(key)) {
      if (!viewer.isShown(label)) {
        continue;
      }
      const path = new Path2D();
      for (const line of lines) {
        line.forEach(([column, row], at) => {
          const [x, y] = placeIn(tile, column, row);
          if (at === 0) {
            path.moveTo(x, y);
          } else {
            path.lineTo(x, y);
          }
        });
        path.closePath();
      }
      const isSelected = label === viewer.view.selected;
      pen.setLineDash([]);
      pen.strokeStyle = "rgba(0, 0, 0, 0.45)";
      pen.lineWidth = (isSelected ? 4 : 3) * viewer.ratio;
      pen.stroke(path);
      pen.setLineDash(lineStyleOf(label).map((length) => length * viewer.ratio));
      pen.strokeStyle = cssColour(colourOf(label));
      pen.lineWidth = (isSelected ? 2.25 : 1.5) * viewer.ratio;
      pen.stroke(path);
    }
    pen.setLineDash([]);
  }

  /** The box that a click changed, dashed, and where the click was: + belongs to the structure, − does not. */
  #clicked(tile, viewer) {
    const { box, voxel, isInside } = viewer.view.clicked;
    if (box !== null) {
      this.#box(tile, viewer, box, [6, 4]);
    }
    const { across, up, through } = PLANES[tile.plane];
    if (voxel[through] === viewer.voxel[through]) {
      const [x, y] = placeIn(tile, voxel[across] + 0.5, voxel[up] + 0.5);
      this.#sign(x, y, isInside, viewer);
    }
  }

  #sign(x, y, isPlus, viewer) {
    const { pen } = this;
    const arm = 5 * viewer.ratio;
    pen.setLineDash([]);
    for (const [colour, width] of [
      [HALO, 5],
      [INK, 2],
    ]) {
      pen.strokeStyle = colour;
      pen.lineWidth = width * viewer.ratio;
      pen.beginPath();
      pen.moveTo(x - arm, y);
      pen.lineTo(x + arm, y);
      if (isPlus) {
        pen.moveTo(x, y - arm);
        pen.lineTo(x, y + arm);
      }
      pen.stroke();
    }
  }

  #box(tile, viewer, box, dash) {
    const { across, up, through } = PLANES[tile.plane];
    const at = viewer.voxel[through];
    if (at < box[through][0] || at >= box[through][1]) {
      return;
    }
    const { pen } = this;
    const [x0, y0] = placeIn(tile, box[across][0], box[up][0]);
    const [x1, y1] = placeIn(tile, box[across][1], box[up][1]);
    const margin = 4 * viewer.ratio;
    pen.strokeStyle = HALO;
    pen.lineWidth = 3 * viewer.ratio;
    const rectangle = [Math.min(x0, x1) - margin, Math.min(y0, y1) - margin, Math.abs(x1 - x0) + 2 * margin, Math.abs(y1 - y0) + 2 * margin];
    pen.strokeRect(...rectangle);
    pen.strokeStyle = INK;
    pen.lineWidth = viewer.ratio;
    pen.setLineDash(dash.map((length) => length * viewer.ratio));
    pen.strokeRect(...rectangle);
    pen.setLineDash([]);
  }

  /** Two lines that leave the middle free. */
  #crossing(tile, viewer) {
    const { pen } = this;
    const { across, up } = PLANES[tile.plane];
    const [x, y] = placeIn(tile, viewer.voxel[across] + 0.5, viewer.voxel[up] + 0.5);
    const [left, top, width, height] = tile.frame;
    const free = 14 * viewer.ratio;
    pen.strokeStyle = "rgba(255, 255, 255, 0.35)";
    pen.lineWidth = viewer.ratio;
    pen.beginPath();
    for (const [x0, y0, x1, y1] of [
      [left, y, x - free, y],
      [x + free, y, left + width, y],
      [x, top, x, y - free],
      [x, y + free, x, top + height],
    ]) {
      pen.moveTo(x0, y0);
      pen.lineTo(x1, y1);
    }
    pen.stroke();
  }

  #brush(tile, viewer) {
    const { pen } = this;
    const { voxel, sign, radius_mm, label, isErasing, isBall } = viewer.view.cursor;
    const { across, up } = PLANES[tile.plane];
    const { spacing_mm } = viewer.nifti;
    const [x, y] = placeIn(tile, voxel[across] + 0.5, voxel[up] + 0.5);
    if (sign !== null) {
      this.#sign(x, y, sign === "+", viewer);
      return;
    }
    const [x1] = placeIn(tile, voxel[across] + 0.5 + radius_mm / spacing_mm[across], voxel[up] + 0.5);
    const [, y1] = placeIn(tile, voxel[across] + 0.5, voxel[up] + 0.5 + radius_mm / spacing_mm[up]);
    const drawn = [
      ["rgba(0, 0, 0, 0.8)", 3, []],
      [isErasing ? INK : cssColour(colourOf(label)), 1.5, isErasing ? [4, 3] : []],
    ];
    for (const [colour, width, dash] of drawn) {
      pen.strokeStyle = colour;
      pen.lineWidth = width * viewer.ratio;
      pen.setLineDash(dash.map((length) => length * viewer.ratio));
      pen.beginPath();
      pen.ellipse(x, y, Math.max(1, Math.abs(x1 - x)), Math.max(1, Math.abs(y1 - y)), 0, 0, 2 * Math.PI);
      if (isBall) {
        pen.moveTo(x + 2 * viewer.ratio, y);
        pen.arc(x, y, 2 * viewer.ratio, 0, 2 * Math.PI);
      }
      pen.stroke();
    }
    pen.setLineDash([]);
  }

  #letters(tile, viewer) {
    const letters = edgeLetters(tile.plane, viewer.view.isRadiological);
    const [left, top, width, height] = tile.frame;
    const middle = top + height / 2;
    const centre = left + width / 2;
    const edge = 12 * viewer.ratio;
    this.#text(letters.left, left + edge, middle, viewer, 14, "center", true);
    this.#text(letters.right, left + width - edge, middle, viewer, 14, "center", true);
    this.#text(letters.top, centre, top + edge, viewer, 14, "center", true);
    this.#text(letters.bottom, centre, top + height - edge, viewer, 14, "center", true);
  }

  #name(tile, viewer, text, isActive = false) {
    const [left, top] = tile.frame;
    const edge = 8 * viewer.ratio;
    this.#text(text, left + edge, top + edge + 4 * viewer.ratio, viewer, 11.5, "left", isActive);
  }

  #scale(tile, viewer) {
    if (viewer.about.isPicture) {
      return;
    }
    const { pen } = this;
    const { across } = PLANES[tile.plane];
    const [a0, a1] = tile.acrossEdges;
    const pixelsPerMm = tile.width / (Math.abs(a1 - a0) * viewer.nifti.spacing_mm[across]);
    const length_mm = SCALES_MM.find((mm) => mm * pixelsPerMm < tile.frame[2] * 0.3) ?? 1;
    const length = length_mm * pixelsPerMm;
    const [left, top, width, height] = tile.frame;
    const x = left + width - length - 10 * viewer.ratio;
    const y = top + height - 10 * viewer.ratio;
    for (const [colour, thickness] of [[HALO, 4], [INK, 1.5]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = thickness * viewer.ratio;
      pen.beginPath();
      pen.moveTo(x, y);
      pen.lineTo(x + length, y);
      pen.stroke();
    }
    this.#text(`${length_mm} mm`, x + length, y - 9 * viewer.ratio, viewer, 10.5, "right");
  }

  #text(text, x, y, viewer, size, align, isBold = false) {
    const { pen } = this;
    pen.font = `${isBold ? 700 : 500} ${size * viewer.ratio}px system-ui, "Segoe UI", Roboto, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", Arial, sans-serif`;
    pen.textAlign = align;
    pen.textBaseline = "middle";
    pen.lineJoin = "round";
    pen.strokeStyle = HALO;
    pen.lineWidth = 3 * viewer.ratio;
    pen.strokeText(text, x, y);
    pen.fillStyle = INK;
    pen.fillText(text, x, y);
  }
}
