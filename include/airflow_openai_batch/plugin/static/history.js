// Cost and failures over a DAG's last runs, as two rows of bars, and as a table for whoever prefers one.

import { apiUrl, airflowUrl, usePoll } from "./api.js";
import { count, money, moment, percent } from "./format.js";
import { AirflowLink, Cell, ErrorNotice, Table } from "./parts.js";

const { createElement: h } = globalThis.React;

const RUNS = 20;
const WIDTH = 24;
const COST_HEIGHT = 60;
const BAD_HEIGHT = 30;
const GAP = 14;

const rowsOf = (run) => (run.rows_ok ?? 0) + (run.rows_bad ?? 0);
const badShare = (run) => (rowsOf(run) ? run.rows_bad / rowsOf(run) : 0);

export function History({ dagId }) {
  const url = apiUrl("history", { dag_id: dagId, limit: RUNS });
  const { data, error, at } = usePoll(url, (answer) => (answer.loaded ? 30 : 1));
  if (!data && error) return h(ErrorNotice, { error, at });
  if (!data || data.runs.length < 2) return null; // one run is no history
  const { runs } = data;
  return h(
    "section",
    { "aria-labelledby": "oab-history" },
    h("h2", { id: "oab-history" }, `Last ${count(runs.length)} runs`),
    h(Chart, { runs }),
    h("details", null, h("summary", null, "As a table"), h(HistoryTable, { runs })),
  );
}

function Chart({ runs }) {
  const dearest = Math.max(...runs.map((run) => run.cost_usd ?? 0));
  const worst = Math.max(...runs.map(badShare));
  const width = RUNS * WIDTH;
  const bounds = { cost: money(dearest), bad: percent(worst) };
  const label = `Cost per run, at most ${bounds.cost}; rows without a good answer, at most ${bounds.bad}`;
  return h(
    "figure",
    { className: "oab-chart" },
    h(
      "svg",
      { viewBox: `0 0 ${width} ${COST_HEIGHT + GAP + BAD_HEIGHT}`, role: "group", "aria-label": label },
      h("line", { x1: 0, x2: width, y1: COST_HEIGHT, y2: COST_HEIGHT }),
      h("line", { x1: 0, x2: width, y1: COST_HEIGHT + GAP, y2: COST_HEIGHT + GAP }),
      runs.map((run, at) => h(RunBars, { key: run.run_id, run, x: at * WIDTH, dearest, worst })),
    ),
    h(
      "figcaption",
      { className: "oab-small" },
      h("span", { className: "oab-dot oab-answered" }, `cost, at most ${bounds.cost}`),
      h("span", { className: "oab-dot oab-failed" }, `rows without a good answer, at most ${bounds.bad}`),
    ),
  );
}

function RunBars({ run, x, dearest, worst }) {
  const cost = dearest ? ((run.cost_usd ?? 0) / dearest) * COST_HEIGHT : 0;
  const bad = worst ? (badShare(run) / worst) * BAD_HEIGHT : 0;
  const text =
    `${run.run_id}\n${moment(run.run_started_at) ?? ""}, ${run.state}\n${money(run.cost_usd)}, ` +
    `${count(run.rows_bad)} of ${count(rowsOf(run))} rows without a good answer`;
  const width = WIDTH - 6;
  return h(
    "a",
    { href: airflowUrl(run.link), "aria-label": text.replaceAll("\n", ", ") },
    h("title", null, text),
    h("rect", { className: "oab-hit", x, y: 0, width: WIDTH, height: COST_HEIGHT + GAP + BAD_HEIGHT }),
    h("rect", { className: "oab-answered", x: x + 3, y: COST_HEIGHT - cost, width, height: cost, rx: 1 }),
    h("rect", { className: "oab-failed", x: x + 3, y: COST_HEIGHT + GAP, width, height: bad, rx: 1 }),
  );
}

function HistoryTable({ runs }) {
  const columns = ["Run", "Started", "State", "Cost", "Saved", "Good rows", "Bad rows", "Rejected lines"];
  return h(
    Table,
    { columns },
    [...runs].reverse().map((run) =>
      h(
        "tr",
        { key: run.run_id },
        h(Cell, { name: "Run", className: "oab-name" }, h(AirflowLink, { to: run.link }, run.run_id)),
        h(Cell, { name: "Started" }, moment(run.run_started_at)),
        h(Cell, { name: "State" }, run.state),
        h(Cell, { name: "Cost" }, money(run.cost_usd)),
        h(Cell, { name: "Saved" }, money(run.saving_usd)),
        h(Cell, { name: "Good rows" }, count(run.rows_ok)),
        h(Cell, { name: "Bad rows" }, count(run.rows_bad)),
        h(Cell, { name: "Rejected lines" }, count(run.rejected)),
      ),
    ),
  );
}
