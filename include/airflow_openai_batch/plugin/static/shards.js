// The shards of one job: a table by pages, filtered by state.

import { apiUrl, call, usePoll } from "./api.js";
import { count, duration, money, moment, plural } from "./format.js";
import {
  Age, AirflowLink, Badge, Cell, CopyButton, Empty, ErrorNotice, Loading, OutsideLink, Pager, RequestBar,
  SHARD_STATES, Table, Waits,
} from "./parts.js";
import { identify, toKey } from "./place.js";

const { createElement: h, useEffect, useState } = globalThis.React;

const PAGE = 100;
const MOST = 500;
const ALL = "all";

/** "40 running · 12 done" */
export function ShardCounts({ shards }) {
  return h(
    "ul",
    { className: "oab-counts" },
    SHARD_STATES.filter((state) => shards.by_state[state]).map((state) =>
      h("li", { key: state, className: `oab-dot oab-${state}` }, `${count(shards.by_state[state])} ${state}`),
    ),
  );
}

/**
 * @param task the task instance whose shard is shown alone at first, if any.
 * @param onCancel called with the shard whose batch is to be cancelled.
 */
export function Shards({ job, task, place, go, pace, onCancel }) {
  const own = useOwnShard(job, task);
  const alone = own !== null && !place.get("shards");
  const state = place.get("shards") ?? "";
  const limit = alone ? 1 : PAGE;
  const offset = alone ? own : Number(place.get("first")) || 0;
  const filter = state === ALL ? "" : state;
  const url = apiUrl("shards", { ...identify(job), state: filter, limit, offset });
  const { data, error, at, pending } = usePoll(url, (answer) => (answer.loaded ? pace : 1));
  const choose = (chosen) => go({ shards: chosen || (own !== null && ALL), first: null });
  let body = error ? null : h(Loading, { what: "shards" });
  if (data?.loaded) {
    body = data.shards.length
      ? h(ShardTable, { shards: data.shards, job, onCancel })
      : h(Empty, { title: filter ? `No shard is ${filter}.` : "No shards." });
  }
  return h(
    "section",
    { "aria-labelledby": "oab-shards", className: pending ? "oab-pending" : undefined },
    h(
      "div",
      { className: "oab-head" },
      h("h3", { id: "oab-shards" }, alone ? "Shard of this task" : "Shards"),
      h(StateFilter, { shards: job.shards, chosen: alone ? null : filter, onChoose: choose }),
    ),
    h(ErrorNotice, { error, at }),
    body,
    data && !alone
      ? h(Pager, { offset, limit, total: data.total, what: "shards", onMove: (first) => go({ first }) })
      : null,
  );
}

/** The place of a mapped task instance's shard among all; null where there is none, or as long as it is not known. */
function useOwnShard(job, task) {
  const [found, setFound] = useState(null);
  const mapIndex = task?.map_index ?? -1;
  useEffect(() => {
    let wanted = mapIndex >= 0;
    if (wanted) findOwnShard(job, task).then((place) => wanted && setFound(place), () => {});
    return () => {
      wanted = false;
    };
  }, [toKey(job), task?.task_id, mapIndex]);
  return found;
}

async function findOwnShard(job, task) {
  const groupOf = (taskId) => taskId.slice(0, taskId.lastIndexOf(".") + 1) || taskId;
  const isOwn = ({ task: its }) =>
    its && its.map_index === task.map_index && groupOf(its.task_id) === groupOf(task.task_id);
  for (let offset = 0, total = 1; offset < total; offset += MOST) {
    const answer = await call(apiUrl("shards", { ...identify(job), limit: MOST, offset }));
    const at = answer.shards.findIndex(isOwn);
    if (at >= 0) return offset + at;
    total = answer.total;
  }
  return null;
}

function StateFilter({ shards, chosen, onChoose }) {
  const choice = (state, label) =>
    h(
      "button",
      {
        key: state,
        type: "button",
        className: `oab-chip${state ? ` oab-dot oab-${state}` : ""}`,
        "aria-pressed": state === chosen,
        onClick: () => onChoose(state),
      },
      label,
    );
  const present = SHARD_STATES.filter((state) => shards.by_state[state] || state === chosen);
  return h(
    "div",
    { className: "oab-chips", role: "group", "aria-label": "Show shards by state" },
    choice("", `all ${count(shards.total)}`),
    present.map((state) => choice(state, `${state} ${count(shards.by_state[state] ?? 0)}`)),
  );
}

function ShardTable({ shards, job, onCancel }) {
  const columns = ["Shard", "State", "Progress", "Batch", "Cost", "Age", "To go", "Links"];
  return h(Table, { columns }, shards.map((shard) => h(ShardRow, { key: shard.shard, shard, job, onCancel })));
}

function ShardRow({ shard, job, onCancel }) {
  const requests = {
    total: shard.requests,
    completed: shard.completed,
    failed: shard.failed,
    landed: shard.state === "done" ? shard.completed : 0,
  };
  return h(
    "tr",
    null,
    h(
      Cell,
      { name: "Shard", className: "oab-first" },
      h("strong", null, count(shard.shard)),
      h("div", { className: "oab-small", title: `${count(shard.input_tokens)} input tokens` }, shard.model),
    ),
    h(
      Cell,
      { name: "State" },
      h(Badge, { state: shard.state }),
      shard.phase === shard.state ? null : h("div", { className: "oab-small" }, shard.phase),
    ),
    h(
      Cell,
      { name: "Progress", className: "oab-wide" },
      h(RequestBar, { label: `Progress of shard ${shard.shard}`, requests }),
      shard.bad_rows
        ? h("div", { className: "oab-problem" }, `${plural(shard.bad_rows, "row", "rows")} without a good answer`)
        : null,
      h(Waits, { text: shard.waits_for }),
      shard.problem ? h("div", { className: "oab-problem" }, shard.problem) : null,
    ),
    h(Cell, { name: "Batch" }, h(Batch, { shard, job, onCancel })),
    h(Cell, { name: "Cost" }, money(shard.cost_usd)),
    h(Cell, { name: "Age", className: "oab-short" }, h(Age, { seconds: shard.age_s, since: shard.batch_created_at })),
    h(Cell, { name: "To go", className: "oab-short" }, duration(shard.eta_s)),
    h(Cell, { name: "Links" }, h(ShardLinks, { shard })),
  );
}

function Batch({ shard, job, onCancel }) {
  const { batch_id: batch, send } = shard;
  const again = send > 1 ? h("div", { className: "oab-small" }, `send ${count(send)}`) : null;
  if (!batch) return again ?? "none";
  return h(
    "div",
    { title: moment(shard.batch_created_at) },
    h("div", null, shard.batch_status ?? "status not known"),
    again,
    h(
      "div",
      { className: "oab-actions" },
      h(CopyButton, { text: batch, label: "batch id", children: "Copy id" }),
      job.may_edit && shard.cancellable
        ? h(
            "button",
            {
              type: "button",
              className: "oab-plain oab-danger",
              "aria-label": `Cancel batch of shard ${shard.shard}`,
              onClick: () => onCancel(shard),
            },
            "Cancel batch",
          )
        : null,
    ),
  );
}

function ShardLinks({ shard }) {
  const { task, links, shard: number } = shard;
  const title = task && `${task.task_id}, ${task.state}`;
  return h(
    "div",
    { className: "oab-links" },
    task && h(AirflowLink, { to: task.link, title, "aria-label": `Task of shard ${number}` }, "Task"),
    links.openai && h(OutsideLink, { href: links.openai, label: `Batch of shard ${number} at OpenAI` }, "OpenAI"),
    links.result && h("span", null, "Result ", h(CopyButton, { text: links.result, label: "result URI" })),
  );
}
