// The words of the page, from one file a language.

export const LANGUAGES = { en: "English", zh: "中文" };

let words = {};
let current = "en";

export async function loadLanguage(language) {
  const name = language in LANGUAGES ? language : "en";
  const answer = await fetch(`text/${name}.json`);
  words = await answer.json();
  current = name;
  document.documentElement.lang = name === "zh" ? "zh-Hans" : "en";
}

export function language() {
  return current;
}

/** The words of a key, with {name} replaced by the value of that name. */
export function t(key, values = {}) {
  const text = words[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

/** The words of a key that the server chose, or what it said itself where there are none. */
export function known(prefix, name) {
  return words[`${prefix}.${name}`] ?? name;
}

export function number(value, digits = 0) {
  return new Intl.NumberFormat(current === "zh" ? "zh-CN" : "en-GB", { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

/** A day and time as people of the language write it, in this computer's time zone. */
export function when(utc) {
  const date = new Date(utc);
  const style = { dateStyle: "medium", timeStyle: "short" };
  return Number.isNaN(date.getTime()) ? String(utc) : new Intl.DateTimeFormat(current === "zh" ? "zh-CN" : "en-GB", style).format(date);
}
