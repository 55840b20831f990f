// The server's answers. Everything goes to where the page came from, and nowhere else.

import { gunzipIfNeeded, gzip } from "./gzip.js";

/** An answer that is not good: ``status`` of HTTP, what the server says, and all that it said. */
export class ServerError extends Error {
  constructor(status, body) {
    super(body.error ?? `HTTP ${status}`);
    this.status = status;
    this.body = body;
  }
}

/** The server does not answer: it was ended, or the connection to it. */
export class NoServer extends Error {}

/** The server was started anew, and has not let this browser in. */
export class NotLetIn extends Error {}

/** Tells "back" when the server answers again that did not, or did not know this browser. */
export const connection = new EventTarget();
let isLost = false;

/** The refiner did not answer in time. */
export class TooSlow extends Error {}

export const REFINE_MS = 180_000; // for which an answer to a click is waited for: the first one reads the image

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "TimeoutError") {
      throw new TooSlow("no answer in time");
    }
    isLost = true;
    throw new NoServer("the server does not answer");
  }
  if (!answer.ok) {
    const body = await answer.json().catch(() => ({}));
    if (body.is_let_in === false) {
      isLost = true;
      throw new NotLetIn(body.error);
    }
    throw new ServerError(answer.status, body);
  }
  if (isLost) {
    isLost = false;
    connection.dispatchEvent(new Event("back"));
  }
  return answer;
}

function post(path, body) {
  const headers = { "Content-Type": "application/json", "X-Segfw": "1" };
  return ask(path, { method: "POST", headers, body: JSON.stringify(body) }).then((answer) => answer.json());
}

function query(fields) {
  const given = Object.entries(fields).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

function casePath(id) {
  return `/api/case/${encodeURIComponent(id)}`;
}

export const getSession = () => ask("/api/session").then((answer) => answer.json());
export const getQueue = (fields) => ask(`/api/queue${query(fields)}`).then((answer) => answer.json());
export const getCase = (id, fields = {}) => ask(`${casePath(id)}${query(fields)}`).then((answer) => answer.json());
export const getClickPlaces = (id, fields) => ask(`${casePath(id)}/click-places${query(fields)}`).then((answer) => answer.json());
export const getSummary = () => ask("/api/summary").then((answer) => answer.json());

/** Bytes of a volume or of a candidate, no longer compressed. */
export async function getBytes(id, what, fields = {}) {
  const answer = await ask(`${casePath(id)}/${what}${query(fields)}`);
  return gunzipIfNeeded(new Uint8Array(await answer.arrayBuffer()));
}

export const openCase = (id) => post("/api/open", { case: id });
export const releaseCase = (id) => post("/api/release", { case: id });
export const heartbeat = (body) => post("/api/heartbeat", body);
export const decide = (body) => post("/api/decide", body);
export const finishCase = (id) => post("/api/finish", { case: id });
export const signCase = (body) => post("/api/sign", body);
export const rejectCase = (body) => post("/api/reject", body);
export const amendCase = (body) => post("/api/amend", body);
export const deliverCase = (body) => post("/api/deliver", body);

/** Sends the whole mask of the served grid. */
export async function saveMask(fields, values) {
  const headers = { "Content-Type": "application/octet-stream", "X-Segfw": "1" };
  const body = await gzip(values);
  const answer = await ask(`/api/save${query(fields)}`, { method: "POST", headers, body });
  return answer.json();
}

/** What the refiner would change for a click on a mask, which is sent as it is drawn now. */
export async function refine(fields, values) {
  const headers = { "Content-Type": "application/octet-stream", "X-Segfw": "1" };
  const body = await gzip(values);
  const signal = AbortSignal.timeout(REFINE_MS);
  const answer = await ask(`/api/refine${query(fields)}`, { method: "POST", headers, body, signal });
  return answer.json();
}

/** Says goodbye while the page is being closed. */
export function releaseOnClose(id) {
  const headers = { "Content-Type": "application/json", "X-Segfw": "1" };
  fetch("/api/release", { method: "POST", headers, body: JSON.stringify({ case: id }), keepalive: true }).catch(() => {});
}
