// Pictures without WebGL: slices drawn by the processor. For comparing, and for browsers that cannot do better (no 3-D then).

import { Picture } from "./picture.js";
import { PLANES, clampIndex, growsToTheRight, sliceValues } from "./planes.js";
import { colourOf } from "./palette.js";

const MOST_ZOOM = 16;

export class PlainViewer extends Picture {
  async start() {
    this.zoomed = 1;
    this.window = { low: 0, high: 1 };
  }

  async show(buffer, nifti, about) {
    this.forget();
    this.nifti = nifti;
    this.about = about;
    this.isFlat = about.isPicture || nifti.dims[2] === 1;
    this.voxel = nifti.dims.map((size) => Math.floor((size - 1) / 2));
    this.resize();
  }

  setMask(values) {
    this.mask = values;
    this.maskChanged();
  }

  maskChanged() {
    this.overlay.forgetOutlines();
    this.invalidate();
  }

  setWindow(low, high) {
    this.window = { low, high: Math.max(high, low + 1e-6) };
    this.invalidate();
  }

  /** Doubt is not drawn here. */
  showDoubt() {}

  turn() {}

  pan() {}

  zoom(factor) {
    this.zoomed = factor === null ? 1 : Math.max(1, Math.min(MOST_ZOOM, this.zoomed * factor));
    this.invalidate();
  }

  drawScene() {
    const pen = this.canvas.getContext("2d");
    pen.fillStyle = "#000000";
    pen.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.tiles = this.layout().map(({ plane, rectangle }) => this.#tile(plane, rectangle));
    for (const tile of this.tiles) {
      this.#paint(pen, tile);
      this.told.onSlices(tile.plane, this.voxel[PLANES[tile.plane].through]);
    }
  }

  /** The whole slice where it is not enlarged, else a part around the crossing of the planes. */
  #tile(plane, [left, top, width, height]) {
    const { across, up } = PLANES[plane];
    const { dims, spacing_mm } = this.nifti;
    const wide_mm = dims[across] * spacing_mm[across];
    const high_mm = dims[up] * spacing_mm[up];
    const scale = Math.min(width / wide_mm, height / high_mm);
    const shownWidth = Math.floor(wide_mm * scale);
    const shownHeight = Math.floor(high_mm * scale);
    const acrossEdges = this.#edges(across);
    return {
      plane,
      frame: [left, top, width, height],
      left: left + Math.floor((width - shownWidth) / 2),
      top: top + Math.floor((height - shownHeight) / 2),
      width: shownWidth,
      height: shownHeight,
      acrossEdges: growsToTheRight(plane, this.view.isRadiological || this.isFlat) ? acrossEdges : acrossEdges.reverse(),
      upEdges: this.#edges(up),
    };
  }

  #edges(axis) {
    const size = this.nifti.dims[axis];
    const shown = size / this.zoomed;
    const first = this.zoomed === 1 ? 0 : this.voxel[axis] + 0.5 - shown / 2;
    return [first, first + shown];
  }

  #paint(pen, tile) {
    const { across, up, through } = PLANES[tile.plane];
    const { dims } = this.nifti;
    const picture = this.#sliceImage(tile.plane, clampIndex(this.voxel[through], dims[through]));
    const small = new OffscreenCanvas(picture.width, picture.height);
    small.getContext("2d").putImageData(picture, 0, 0);
    pen.save();
    pen.beginPath();
    pen.rect(tile.left, tile.top, tile.width, tile.height);
    pen.clip();
    // Rows of a slice grow upwards on the screen; columns to the left where the sides are exchanged.
    const [a0, a1] = tile.acrossEdges;
    const [u0, u1] = tile.upEdges;
    pen.translate(tile.left, tile.top + tile.height);
    pen.scale(tile.width / (a1 - a0), -tile.height / (u1 - u0));
    pen.translate(-a0, -u0);
    pen.imageSmoothingEnabled = true;
    pen.drawImage(small, 0, 0, dims[across], dims[up]);
    pen.restore();
  }

  #sliceImage(plane, slice) {
    const { values, isColour, slope, intercept, dims } = this.nifti;
    const { across, up } = PLANES[plane];
    const image = new ImageData(dims[across], dims[up]);
    const grey = isColour ? null : sliceValues(values, dims, plane, slice).values;
    const pixels = dims[across] * dims[up];
    const { low, high } = this.window;
    for (let at = 0; at < pixels; at += 1) {
      if (isColour) {
        image.data.set(values.subarray(3 * at, 3 * at + 3), 4 * at);
      } else {
        const shade = (255 * (grey[at] * slope + intercept - low)) / (high - low);
        image.data.fill(shade, 4 * at, 4 * at + 3);
      }
      image.data[4 * at + 3] = 255;
    }
    if (this.mask && !this.view.isMaskHidden && this.view.maskMode !== "contour") {
      this.#fill(image, sliceValues(this.mask, dims, plane, slice).values);
    }
    return image;
  }

  #fill(image, labels) {
    const { opacity } = this.view;
    labels.forEach((label, at) => {
      if (label > 0 && this.isShown(label)) {
        const colour = colourOf(label);
        for (let part = 0; part < 3; part += 1) {
          image.data[4 * at + part] = image.data[4 * at + part] * (1 - opacity) + colour[part] * opacity;
        }
      }
    });
  }

  close() {
    this.resizeObserver.disconnect();
  }
}
