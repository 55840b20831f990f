// The two rows of buttons above the picture: what is seen, and what is drawn.

import { actionButton, el } from "./dom.js";
import { keyLabel } from "./keymap.js";
import { known, number, t } from "./text.js";

/** A button of one sign, whose key is told when the pointer rests on it. */
const bare = (text) => ({ text, className: "bare" });

/** Buttons of looking: outline or fill, doubt, window, sides, arrangement, size. */
export class ViewBar {
  constructor(does) {
    this.does = does;
    this.element = el("div", { className: "bar", role: "toolbar", "aria-label": t("bar.view") });
    this.opacity = el("input", {
      type: "range",
      min: "10",
      max: "100",
      step: "5",
      "aria-label": t("bar.opacity"),
      title: t("bar.opacity"),
      oninput: () => does.set({ opacity: Number(this.opacity.value) / 100 }),
    });
    this.window = el("select", { "aria-label": t("bar.window"), title: `${t("bar.window")} (${keyLabel("window")})`, "data-action": "window", onchange: () => does.window(Number(this.window.value)) });
  }

  update({ view, windows, windowAt, about, channel, isPlain }) {
    const { run } = this.does;
    const flat = about.is_picture;
    this.opacity.value = String(Math.round(view.opacity * 100));
    this.window.replaceChildren(
      ...windows.map(({ name }, at) => el("option", { value: String(at), selected: at === windowAt }, known("window", name))),
      ...(windowAt < 0 ? [el("option", { value: "-1", selected: true }, t("window.own"))] : []),
    );
    this.window.hidden = windows.length === 0;
    const mode = t(`mode.${view.maskMode}`);
    const hidesDoubt = about.hidden || about.has_doubt === false || isPlain;
    this.element.replaceChildren(
      actionButton("contour", run, { text: mode }),
      this.opacity,
      actionButton("hide", run, { isPressed: view.isMaskHidden }),
      actionButton("alone", run, { isPressed: view.alone !== null }),
      actionButton("doubt", run, { isPressed: view.isDoubtShown, isEnabled: !hidesDoubt }),
      this.window,
      ...(about.channels?.length > 1 ? [channelChoice(about.channels, channel, this.does.channel)] : []),
      ...(about.has_letters ? [actionButton("convention", run, { text: view.isRadiological ? t("convention.radiological") : t("convention.neurological") })] : []),
      ...(flat ? [] : [actionButton("layout", run, { text: t(`layout.${view.layout}`) }), actionButton("plane_next", run, { text: t(`plane.${view.plane}`) })]),
      el("span", { className: "group" }, actionButton("zoom_out", run, bare("−")), actionButton("zoom_in", run, bare("+")), actionButton("zoom_reset", run, { className: "bare" })),
      ...(flat || isPlain ? [] : [el("span", { className: "group turn" }, actionButton("turn_left", run, bare("↶")), actionButton("turn_right", run, bare("↷")))]),
    );
    // While the opacity is moved the slider must stay the element that has the focus.
    this.opacity.hidden = view.maskMode === "contour";
  }
}

/** Images of several channels, such as sequences of an MR, are shown one at a time. */
function channelChoice(channels, channel, choose) {
  const options = channels.map((name, at) => el("option", { value: String(at), selected: at === channel }, name));
  return el("select", { "aria-label": t("bar.channel"), title: t("bar.channel"), onchange: (event) => choose(Number(event.target.value)) }, options);
}

/** Buttons of drawing: brush, size, fill, interpolate, where, undo, save. */
export class DrawBar {
  constructor(does) {
    this.does = does;
    this.element = el("div", { className: "bar draw", role: "toolbar", "aria-label": t("bar.draw") });
    this.size = el("output", { className: "size" });
    this.inside = el("select", { "aria-label": t("bar.place_label"), title: t("bar.place_label"), onchange: () => does.placeLabel(Number(this.inside.value)) });
  }

  update({ tool, clicks, isBall, radius_mm, unit, rules, isEditable, canUndo, canRedo, isDirty, labels, groups, group, isPicture }) {
    const { run } = this.does;
    const isEnabled = isEditable;
    this.size.textContent = t(`bar.size_${unit}`, { size: number(radius_mm * 2, radius_mm * 2 < 10 ? 1 : 0) });
    const asksLabel = rules.place === "inside" || rules.place === "outside";
    this.inside.replaceChildren(
      el("option", { value: "0", selected: rules.placeLabel === 0 }, t("label.background")),
      ...labels.map(({ index, name }) => el("option", { value: String(index), selected: rules.placeLabel === index }, name)),
    );
    this.element.replaceChildren(
      el(
        "span",
        { className: "group" },
        actionButton("brush", run, { isPressed: tool === "brush", isEnabled }),
        actionButton("erase", run, { isPressed: tool === "erase", isEnabled }),
        ...(isPicture ? [] : [actionButton("ball", run, { isPressed: isBall, isEnabled })]),
      ),
      clickButtons(clicks, tool, isEnabled, run),
      el("span", { className: "group" }, actionButton("size_down", run, { ...bare("−"), isEnabled }), this.size, actionButton("size_up", run, { ...bare("+"), isEnabled })),
      actionButton("fill", run, { isEnabled }),
      ...(isPicture ? [] : [actionButton("interpolate", run, { isEnabled })]),
      actionButton("lock", run, { isPressed: rules.isLocked, isEnabled }),
      actionButton("place", run, { text: t(`place.${rules.place}`), isEnabled }),
      ...(asksLabel ? [this.inside] : []),
      ...(groups > 1 ? [groupChoice(groups, group, this.does.group)] : []),
      el("span", { className: "group" }, actionButton("undo", run, { isEnabled: isEnabled && canUndo }), actionButton("redo", run, { isEnabled: isEnabled && canRedo })),
      actionButton("save", run, { isEnabled: isEnabled && isDirty, className: isDirty ? "primary" : "" }),
    );
  }
}

/** Buttons of the click tool; without a refiner they are not there to be seen. */
function clickButtons(clicks, tool, isEnabled, run) {
  const isOn = tool === "refine";
  return el(
    "span",
    { className: "group", hidden: !clicks.isThere },
    actionButton("refine", run, { isPressed: isOn, isEnabled }),
    ...(isOn || !clicks.isThere
      ? [
          actionButton("refine_side", run, { text: t(`refine.side_${clicks.isOutside ? "outside" : "inside"}`), isEnabled }),
          actionButton("refine_accept", run, { isEnabled: isEnabled && Boolean(clicks.clicked?.box) }),
          actionButton("refine_next", run),
        ]
      : []),
  );
}

/** Masks with more than 255 labels are shown and drawn in groups. */
function groupChoice(groups, group, choose) {
  const options = Array.from({ length: groups }, (_, at) => el("option", { value: String(at), selected: at === group }, t("bar.group", { n: at + 1, count: groups })));
  return el("select", { "aria-label": t("bar.group_label"), onchange: (event) => choose(Number(event.target.value)) }, options);
}
