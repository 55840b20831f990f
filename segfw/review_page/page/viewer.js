// The picture: NiiVue draws image, mask and 3-D; outlines, letters and the brush are drawn over it by overlay.js.
// Nothing of NiiVue's own mouse and keys is used, so that every action has one meaning.

import { DRAG_MODE, NVImage, Niivue, SLICE_TYPE } from "./niivue/niivue.js";
import { colourOf } from "./palette.js";
import { Picture } from "./picture.js";
import { PLANES, PLANE_NAMES } from "./planes.js";

const SLICE_TYPES = { axial: SLICE_TYPE.AXIAL, coronal: SLICE_TYPE.CORONAL, sagittal: SLICE_TYPE.SAGITTAL, render: SLICE_TYPE.RENDER };
const PLANE_OF_TYPE = new Map(PLANE_NAMES.map((plane) => [SLICE_TYPES[plane], plane]));
const MOST_ZOOM = 16;
const DOUBT_OPACITY = 0.55;
const LEAST_DOUBT = 0.05; // of the largest; less is not coloured
const BELOW_LEAST_IS_CLEAR = 2; // NiiVue's COLORMAP_TYPE.ZERO_TO_MAX_TRANSPARENT_BELOW_MIN

/** Whether this browser can draw at all. */
export function canDraw() {
  return document.createElement("canvas").getContext("webgl2") !== null;
}

export class Viewer extends Picture {
  async start() {
    // The context is made here and not by NiiVue, because one picture is to stay while another is drawn anew.
    this.canvas.getContext("webgl2", { alpha: true, antialias: false, preserveDrawingBuffer: true });
    this.nv = new Niivue({
      interactive: false,
      isResizeCanvas: false,
      crosshairWidth: 0,
      show3Dcrosshair: false,
      isOrientationTextVisible: false,
      sagittalNoseLeft: true,
      isRadiologicalConvention: true,
      isSliceMM: false,
      isOrientCube: false,
      isColorbar: false,
      backColor: [0, 0, 0, 1],
      loadingText: "",
      dragMode: DRAG_MODE.none,
      logLevel: "error",
    });
    await this.nv.attachToCanvas(this.canvas, false);
    this.#adaptNiivue();
    this.nothing = this.nv.rgbaTex(null, this.nv.gl.TEXTURE2, [3, 2, 2, 2], true);
    this.hasRender = true;
    this.canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault();
      this.isLost = true;
      this.told.onLost();
    });
  }

  #bindOverlay(texture) {
    const gl = this.nv.gl;
    gl.activeTexture(gl.TEXTURE2);
    gl.bindTexture(gl.TEXTURE_3D, texture);
  }

  /** Whole pixels for all pictures, 3-D of the mask alone, and a stroke that leaves the other pictures as they are. */
  #adaptNiivue() {
    const nv = this.nv;
    const size = nv.calculateWidthHeight.bind(nv);
    nv.calculateWidthHeight = (...given) => size(...given).map(Math.floor);
    const draw3D = nv.draw3D.bind(nv);
    nv.draw3D = (...given) => {
      const opacity = nv.drawOpacity;
      nv.drawOpacity = this.view.isMaskHidden ? 0 : 1;
      nv.renderShader.use(nv.gl);
      nv.gl.uniform1f(nv.renderShader.uniforms.backOpacity, 0);
      // Doubt is of slices: in 3-D it would hide the structures.
      this.#bindOverlay(this.nothing);
      const answer = draw3D(...given);
      this.#bindOverlay(nv.overlayTexture);
      nv.drawOpacity = opacity;
      return answer;
    };
    const clear = nv.clearBounds.bind(nv);
    nv.clearBounds = (mask, rectangle) => {
      for (const place of rectangle ? [rectangle] : (this.cleared ?? [undefined])) {
        clear(mask, place);
      }
    };
  }

  /**
   * Shows an image.
   * @param {ArrayBuffer} buffer of its file, not compressed
   * @param {{dims: number[], spacing_mm: number[], values: ArrayLike<number>, isColour: boolean}} nifti the same, as read here
   * @param {{hasLetters: boolean, isPicture: boolean}} about
   */
  async show(buffer, nifti, about) {
    const image = await NVImage.loadFromUrl({ url: buffer, name: "image.nii" });
    this.forget();
    this.nifti = nifti;
    this.about = about;
    this.nv.addVolume(image);
    this.isFlat = about.isPicture || nifti.dims[2] === 1;
    this.view.plane = "axial";
    this.voxel = nifti.dims.map((size) => Math.floor((size - 1) / 2));
    this.zoom(null);
    this.resize();
  }

  /** Takes image and mask off the graphics card; the next case needs no new set-up. */
  forget() {
    super.forget();
    this.nv.closeDrawing();
    while (this.nv.volumes.length > 0) {
      this.nv.removeVolumeByIndex(this.nv.volumes.length - 1);
    }
    this.doubt = null;
  }

  /** The mask that is drawn: an array that others change, and then say where with ``maskChanged``. */
  setMask(values) {
    const nv = this.nv;
    this.mask = values;
    nv.drawBitmap = values;
    nv.drawTexture = nv.r8Tex(nv.drawTexture, nv.gl.TEXTURE7, nv.back.dims, false);
    this.maskChanged(this.nifti.dims.map((size) => [0, size]));
  }

  /** Hands the changed box on to the graphics card: [first, behind the last] for x, y, z. */
  maskChanged(box) {
    if (box === null || this.isLost) {
      return;
    }
    const [xs, ys, zs] = box;
    const size = box.map(([first, behind]) => behind - first);
    const gl = this.nv.gl;
    gl.activeTexture(gl.TEXTURE7);
    gl.bindTexture(gl.TEXTURE_3D, this.nv.drawTexture);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    const part = this.#partOfMask(box, size);
    gl.texSubImage3D(gl.TEXTURE_3D, 0, xs[0], ys[0], zs[0], ...size, gl.RED, gl.UNSIGNED_BYTE, part);
    this.overlay.forgetOutlines();
    this.invalidate();
  }

  #partOfMask(box, size) {
    const { dims } = this.nifti;
    if (size.every((length, axis) => length === dims[axis])) {
      return this.mask;
    }
    const [xs, ys, zs] = box;
    const part = new Uint8Array(size[0] * size[1] * size[2]);
    let to = 0;
    for (let z = zs[0]; z < zs[1]; z += 1) {
      for (let y = ys[0]; y < ys[1]; y += 1) {
        const from = (z * dims[1] + y) * dims[0] + xs[0];
        part.set(this.mask.subarray(from, from + size[0]), to);
        to += size[0];
      }
    }
    return part;
  }

  /** Adds the doubt map, which is shown when ``view.isDoubtShown`` says so. */
  async setDoubt(buffer) {
    const doubt = await NVImage.loadFromUrl({ url: buffer, name: "doubt.nii", colormap: "cividis", opacity: 0 });
    const most = doubt.global_max > 0 ? doubt.global_max : 1;
    doubt.cal_min = LEAST_DOUBT * most;
    doubt.cal_max = most;
    doubt.colormapType = BELOW_LEAST_IS_CLEAR;
    this.doubt = doubt;
    this.nv.addVolume(doubt);
    this.showDoubt(true);
  }

  showDoubt(isShown) {
    this.view.isDoubtShown = isShown && this.doubt !== null;
    if (this.doubt !== null) {
      this.doubt.opacity = this.view.isDoubtShown ? DOUBT_OPACITY : 0;
      this.nv.updateGLVolume();
    }
    this.invalidatePlanes();
  }

  setWindow(low, high) {
    const image = this.nv.volumes[0];
    image.cal_min = low;
    image.cal_max = Math.max(high, low + 1e-6);
    this.window = { low, high };
    this.isWindowChanged = true;
    this.invalidatePlanes();
  }

  /** Larger or smaller by a factor, around the crossing of the planes; null shows the whole. */
  zoom(factor) {
    const scene = this.nv.scene;
    const zoom = factor === null ? 1 : Math.max(1, Math.min(MOST_ZOOM, scene.pan2Dxyzmm[3] * factor));
    const pan = zoom === 1 ? [0, 0, 0] : this.#panToCrossing(zoom);
    scene.pan2Dxyzmm = [...pan, zoom];
    this.invalidatePlanes();
  }

  /** Moves the pictures by millimetres along x, y, z. */
  pan(by_mm) {
    const scene = this.nv.scene;
    const [x, y, z, zoom] = scene.pan2Dxyzmm;
    scene.pan2Dxyzmm = [x + by_mm[0] * zoom, y + by_mm[1] * zoom, z + by_mm[2] * zoom, zoom];
    this.invalidatePlanes();
  }

  #panToCrossing(zoom) {
    const { dims, spacing_mm } = this.nifti;
    const { extentsMinOrtho, extentsMaxOrtho } = this.nv.volumes[0];
    return this.voxel.map((index, axis) => {
      const centre_mm = (extentsMinOrtho[axis] + extentsMaxOrtho[axis]) / 2;
      const place_mm = centre_mm + (index + 0.5 - dims[axis] / 2) * spacing_mm[axis];
      return centre_mm - place_mm * zoom;
    });
  }

  turn(degrees, up = 0) {
    const scene = this.nv.scene;
    scene.renderAzimuth = (scene.renderAzimuth + degrees + 360) % 360;
    scene.renderElevation = Math.max(-90, Math.min(90, scene.renderElevation + up));
    this.invalidate();
  }

  drawScene() {
    const nv = this.nv;
    const { view } = this;
    if (this.isWindowChanged) {
      this.isWindowChanged = false;
      nv.updateGLVolume();
    }
    this.#setColours();
    nv.opts.isRadiologicalConvention = view.isRadiological || this.isFlat;
    nv.drawOpacity = view.isMaskHidden || view.maskMode === "contour" ? 0 : view.opacity;
    nv.scene.crosshairPos = this.voxel.map((index, axis) => (index + 0.5) / this.nifti.dims[axis]);
    const all = this.layout();
    const places = this.#placesToDraw(all);
    this.cleared = places === all ? [undefined] : places.map(({ rectangle }) => rectangle);
    const { width, height } = this.canvas;
    nv.customLayout = places.map(({ plane, rectangle: [left, top, w, h] }) => ({
      sliceType: SLICE_TYPES[plane],
      position: [left / width, top / height, w / width, h / height],
    }));
    nv.drawScene();
    const drawn = this.#tilesDrawn(places);
    const known = [...drawn, ...this.tiles];
    this.tiles = all.map((place) => known.find(({ plane }) => plane === place.plane));
    for (const { plane } of this.tiles) {
      if (plane !== "render") {
        this.told.onSlices(plane, this.voxel[PLANES[plane].through]);
      }
    }
  }

  /** While a stroke is drawn its own picture; without news of the mask the slices; else all, the gaps between them too. */
  #placesToDraw(all) {
    const { strokePlane } = this.view;
    const layoutKey = JSON.stringify(all);
    const isLaidOut = layoutKey === this.laidOut;
    if (isLaidOut && strokePlane !== null) {
      return all.filter(({ plane }) => plane === strokePlane);
    }
    if (isLaidOut && !this.isRenderOld) {
      return all.filter(({ plane }) => plane !== "render");
    }
    this.laidOut = layoutKey;
    this.isRenderOld = false;
    return all;
  }

  #setColours() {
    const lut = new Uint8ClampedArray(256 * 4);
    for (let index = 1; index < 256; index += 1) {
      const isShown = this.isShown(index);
      lut.set([...(index === 255 && this.about.hasGroups ? [160, 160, 160] : colourOf(index)), isShown ? 255 : 0], 4 * index);
    }
    const key = String(lut);
    if (key !== this.lutKey) {
      this.lutKey = key;
      this.nv.drawLut = { lut, labels: Array.from({ length: 256 }, (_, index) => String(index)) };
      this.nv.refreshColormaps();
    }
  }

  /** For each picture that was drawn: where it lies, and which voxels its edges are. */
  #tilesDrawn(places) {
    const nv = this.nv;
    return nv.screenSlices.map((slice, at) => {
      const [left, top, width, height] = slice.leftTopWidthHeight.map(Math.trunc);
      const plane = PLANE_OF_TYPE.get(slice.axCorSag) ?? "render";
      const tile = { plane, left, top, width, height, frame: places[at].rectangle };
      if (plane === "render") {
        return tile;
      }
      const { across, up } = PLANES[plane];
      const { dims } = this.nifti;
      tile.acrossEdges = this.#edges(slice.leftTopWidthHeight, at, across).map((share) => share * dims[across]);
      tile.upEdges = this.#edges(slice.leftTopWidthHeight, at, up).map((share) => share * dims[up]);
      return tile;
    });
  }

  /** Shares of an axis at the lower left and the upper right corner of a picture. */
  #edges([left, top, width, height], at, axis) {
    // NiiVue takes what lies a hair outside of a picture for nothing: two places inside say what the corners are.
    const low = this.nv.screenXY2TextureFrac(left + width / 4, top + (3 * height) / 4, at, false)[axis];
    const high = this.nv.screenXY2TextureFrac(left + (3 * width) / 4, top + height / 4, at, false)[axis];
    return [low - (high - low) / 2, high + (high - low) / 2];
  }

  close() {
    this.resizeObserver?.disconnect();
    this.nv?.cleanup();
    this.nv?.gl.getExtension("WEBGL_lose_context")?.loseContext();
    this.isLost = true;
  }
}
