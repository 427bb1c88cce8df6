// The batch queues of the accounts: tokens in flight against OpenAI's limit.

import { Bar } from "./parts.js";
import { count, duration, percent, plural, short } from "./format.js";

const { createElement: h } = globalThis.React;

const ORIGINS = {
  connection: "as the connection says",
  refusal: "as the server said when it refused a batch",
};

export function Queues({ queues }) {
  if (!queues.length) return null;
  return h(
    "section",
    { "aria-labelledby": "oab-queues" },
    h("h2", { id: "oab-queues" }, "Batch queues"),
    h(
      "ul",
      { className: "oab-queues" },
      queues.map((queue) => h(Queue, { key: `${queue.conn_id} ${queue.model}`, queue })),
    ),
  );
}

function Queue({ queue }) {
  const { conn_id, model, tokens_in_flight: all, others_tokens: others, limit } = queue;
  return h(
    "li",
    { className: "oab-queue" },
    h("div", { className: "oab-queue-name" }, h("strong", null, model || "no batch"), h("span", null, conn_id)),
    limit
      ? h(Bar, {
          label: `Batch queue of ${model} with ${conn_id}`,
          total: limit,
          parts: [
            { kind: "answered", value: all - others },
            { kind: "others", value: others },
          ],
          text: `${count(all)} of ${count(limit)} tokens in flight`,
        })
      : null,
    model ? h("div", { className: "oab-small" }, h(Use, { queue })) : null,
    model ? h("div", { className: "oab-small" }, describeBatches(queue)) : null,
    queue.usual.map((usual) => h("div", { key: usual.up_to, className: "oab-small" }, describeUsual(usual))),
    queue.error ? h("div", { className: "oab-problem", title: queue.error }, queue.error) : null,
  );
}

function Use({ queue }) {
  const { tokens_in_flight: all, others_tokens: others, limit, limit_from } = queue;
  const beside = others ? `, ${short(others)} of them of other jobs` : "";
  if (!limit) {
    return h("span", { title: `${count(all)} tokens` }, `${short(all)} tokens in flight${beside}; limit not known`);
  }
  const origin = ORIGINS[limit_from];
  return h(
    "span",
    { title: `${count(all)} of ${count(limit)} tokens${origin ? `, ${origin}` : ""}` },
    `${short(all)} of ${short(limit)} tokens in flight (${percent(all / limit)})${beside}`,
  );
}

function describeUsual({ up_to: most, batches, median_s: median, p95_s: p95 }) {
  const measured = plural(batches, "batch", "batches");
  return `Up to ${count(most)} requests: ${duration(median)}, 19 of 20 within ${duration(p95)} (${measured})`;
}

function describeBatches({ batches, oldest_age_s: age }) {
  const words = plural(batches, "batch", "batches");
  return batches && age !== null ? `${words}, the oldest ${duration(age)} old` : words;
}
