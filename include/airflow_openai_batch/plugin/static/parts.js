// What all views are made of: bars, badges, links, notices, pages.

import { airflowUrl } from "./api.js";
import { count, duration, moment, plural, timeOfDay } from "./format.js";

const { createElement: h, useState } = globalThis.React;

/** Shards by state, in the order that they go through. */
export const SHARD_STATES = ["waiting", "sending", "running", "landing", "done", "failed"];

const MEANINGS = {
  planned: "Planned; nothing is sent yet",
  incomplete: "The run is over, and shards are not done",
  waiting: "Not sent: waits for its task or for room in the batch queue",
  sending: "Being uploaded or created",
  running: "OpenAI works on it",
  landing: "Answered; results are being written",
  done: "All results are written",
  failed: "Stopped with an error, or its task failed",
};

/**
 * One bar of several parts, read out as a whole.
 *
 * @param parts [{kind, value}], from the left; what is left of the total stays empty.
 */
export function Bar({ label, total, parts, text }) {
  const filled = parts.reduce((sum, part) => sum + part.value, 0);
  const scale = Math.max(total || 0, filled) || 1;
  const aria = {
    role: "progressbar",
    "aria-label": label,
    "aria-valuemin": 0,
    "aria-valuemax": scale,
    "aria-valuenow": filled,
    "aria-valuetext": text,
  };
  return h(
    "div",
    { className: "oab-bar", title: text, ...aria },
    parts
      .filter((part) => part.value > 0)
      .map(({ kind, value }) =>
        h("span", { key: kind, className: `oab-fill oab-${kind}`, style: { width: `${(100 * value) / scale}%` } }),
      ),
  );
}

/** How far requests are: what is landed, what OpenAI has answered beyond that, what failed. */
export function RequestBar({ label, requests }) {
  const { total, completed, failed, landed = 0, rejected = 0 } = requests;
  const text = [
    `${count(completed + failed)} of ${plural(total, "request", "requests")} finished`,
    landed && `${count(landed)} landed`,
    failed && `${count(failed)} failed`,
    rejected && `${plural(rejected, "line", "lines")} rejected`,
  ];
  const words = text.filter(Boolean).join(" · ");
  const parts = [
    { kind: "landed", value: Math.min(landed, completed) },
    { kind: "answered", value: Math.max(0, completed - landed) },
    { kind: "failed", value: failed },
  ];
  return h("div", null, h(Bar, { label, total, parts, text: words }), h("div", { className: "oab-small" }, words));
}

/** What something waits for; Airflow's names of mapped tasks begin with "waits for" themselves. */
export const reason = (text) => text?.replace(/^waits for /, "");

export const Waits = ({ text }) =>
  text ? h("div", { className: "oab-waits" }, `Waits for ${reason(text)}`) : null;

export const Badge = ({ state, title }) =>
  h("span", { className: `oab-badge oab-${state}`, title: title ?? MEANINGS[state] }, state);

/** A page of Airflow's: without loading the UI anew where Airflow shares its router (3.3). */
export function AirflowLink({ to, children, ...rest }) {
  const Link = globalThis.ReactRouterDOM?.Link;
  return Link ? h(Link, { to, ...rest }, children) : h("a", { href: airflowUrl(to), ...rest }, children);
}

export const OutsideLink = ({ href, label, children }) =>
  h("a", { href, target: "_blank", rel: "noopener noreferrer", title: label, "aria-label": label }, children, " ↗");

export const Age = ({ seconds, since }) => h("span", { title: moment(since) }, duration(seconds));

export function CopyButton({ text, label, children = "Copy" }) {
  const [said, say] = useState("");
  async function copy() {
    say((await copyText(text)) ? "Copied" : "Not copied");
    setTimeout(() => say(""), 2000);
  }
  const named = said ? {} : { "aria-label": `Copy ${label}: ${text}` };
  return h(
    "button",
    { type: "button", className: "oab-plain", onClick: copy, title: text, ...named },
    h("span", { role: "status" }, said || children),
  );
}

async function copyText(text) {
  if (navigator.clipboard) {
    const copied = await navigator.clipboard.writeText(text).then(() => true, () => false);
    if (copied) return true;
  }
  // Browsers keep the clipboard from pages that did not come over https.
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  const focused = document.activeElement;
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  focused?.focus();
  return copied;
}

/**
 * What went wrong; data that is there stays in view.
 *
 * @param at when that data came.
 * @param once whether it was an action, which is not tried again.
 */
export function ErrorNotice({ error, at, once = false }) {
  if (!error) return null;
  const beside = once || error.status === 401 || error.status === 403 ? null : shownFrom(at);
  return h(
    "div",
    { className: "oab-notice oab-notice-error", role: "alert" },
    h("div", null, explain(error)),
    beside && h("div", { className: "oab-small" }, beside),
  );
}

function explain(error) {
  if (error.status === 401) {
    const login = `${airflowUrl("api/v2/auth/login")}?next=${encodeURIComponent(location.href)}`;
    return ["Your session has ended. ", h("a", { key: "login", href: login }, "Log in again")];
  }
  if (error.status === 403) return error.message;
  if (error.status) return `Airflow answered ${error.status}: ${error.message}`;
  return "Airflow cannot be reached.";
}

const shownFrom = (at) => (at ? `Shown is what was there at ${timeOfDay(at)}; trying again.` : "Trying again.");

export const Loading = ({ what }) => h("p", { className: "oab-muted", role: "status" }, `Loading ${what} …`);

export const Empty = ({ title, children }) =>
  h("div", { className: "oab-empty" }, h("p", { className: "oab-empty-title" }, title), h("p", null, children));

export function Pager({ offset, limit, total, what, onMove }) {
  if (total <= limit && !offset) return null;
  const last = Math.min(total, offset + limit);
  const turn = (label, to, disabled) =>
    h("button", { type: "button", className: "oab-button", disabled, onClick: () => onMove(to) }, label);
  return h(
    "nav",
    { className: "oab-pager", "aria-label": `Pages of ${what}` },
    turn("Previous", Math.max(0, offset - limit), offset === 0),
    h("span", { role: "status" }, `${count(offset + 1)} to ${count(last)} of ${count(total)}`),
    turn("Next", offset + limit, offset + limit >= total),
  );
}

export const Table = ({ columns, children }) =>
  h(
    "table",
    { className: "oab-table" },
    h("thead", null, h("tr", null, columns.map((name) => h("th", { key: name, scope: "col" }, name)))),
    h("tbody", null, children),
  );

/** A cell that carries its column's name along, for the narrow layout where rows become cards. */
export const Cell = ({ name, className, children }) =>
  h("td", { "data-name": name, className }, h("div", { className: "oab-cell" }, children));
