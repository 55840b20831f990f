// Small tools for making parts of the page. No part of the page is made of strings of HTML.

import { keyLabel } from "./keymap.js";
import { t } from "./text.js";

/** An element with properties, attributes (``aria-`` and ``data-``), listeners (``on...``) and children. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) {
      continue;
    }
    if (name.startsWith("on")) {
      element.addEventListener(name.slice(2), value);
    } else if (name.includes("-") || name === "role" || name === "for" || name === "list") {
      element.setAttribute(name, value);
    } else {
      element[name] = value;
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A button of an action: its words, its key, and what it does. */
export function actionButton(id, run, { isPressed = null, text = null, className = "", isEnabled = true, hint = null } = {}) {
  const key = keyLabel(id);
  const words = text ?? t(`action.${id}`);
  return el(
    "button",
    {
      type: "button",
      className: `act ${className}`,
      onclick: () => run(id),
      disabled: !isEnabled,
      title: `${hint ?? t(`action.${id}.help`)} (${key})`,
      "data-action": id,
      "aria-pressed": isPressed === null ? null : String(isPressed),
      "aria-keyshortcuts": key,
    },
    el("span", {}, words),
    el("kbd", { "aria-hidden": "true" }, key),
  );
}

/** Says something at the lower edge for some seconds; screen readers are told as well. */
export function say(text, kind = "note") {
  const place = document.getElementById("said");
  const line = el("p", { className: `toast ${kind}` }, text);
  place.append(line);
  while (place.children.length > 3) {
    place.firstChild.remove();
  }
  setTimeout(() => line.remove(), kind === "note" ? 4000 : 12_000);
}

/**
 * A dialog; resolves with the value of the button that closed it, or null for Escape. ``buttons`` are [value, words, kind];
 * ``body`` may hold a form, whose fields are read by the caller.
 */
export function ask(title, body, buttons) {
  return new Promise((resolve) => {
    const before = document.activeElement;
    const dialog = el(
      "dialog",
      { "aria-labelledby": "dialog-title" },
      el("h2", { id: "dialog-title" }, title),
      el("div", { className: "dialog-body" }, ...[body].flat()),
      el(
        "div",
        { className: "buttons" },
        buttons.map(([value, words, kind]) =>
          el("button", { type: "button", className: kind ?? "", "data-answer": String(value), onclick: () => dialog.close(String(value)) }, words),
        ),
      ),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      before?.focus?.({ preventScroll: true });
      const chosen = buttons.find(([value]) => String(value) === dialog.returnValue);
      resolve(chosen === undefined ? null : chosen[0]);
    });
    document.body.append(dialog);
    dialog.showModal();
    (dialog.querySelector("[autofocus], input, select, textarea") ?? dialog.querySelector(".buttons button")).focus();
  });
}

/** Draws a part of the page anew and leaves the focus on the same button, for people who work with the keyboard alone. */
export function keepingFocus(element, draw) {
  const focused = element.contains(document.activeElement) ? document.activeElement : null;
  const names = ["data-action", "data-structure", "data-region", "aria-label"];
  const found = focused === null ? [] : names.filter((name) => focused.hasAttribute(name));
  draw();
  if (found.length > 0 && !element.contains(document.activeElement)) {
    const selector = `[${found[0]}="${CSS.escape(focused.getAttribute(found[0]))}"]`;
    element.querySelector(selector)?.focus({ preventScroll: true });
  }
}
