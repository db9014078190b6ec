import { execFile } from "node:child_process";
import { globSync, readFileSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { parseAllDocuments, parse } from "yaml";
import { parseConfig } from "../../src/bin/config-file.ts";
import { logTo } from "../../src/report/log-writer.ts";
import { recordOf } from "../../src/report/log.ts";
import { series } from "../../src/telemetry/series.ts";
import { createDatabase } from "../support/database.ts";
import { needs, part } from "../support/parts.ts";
import { openTarget, tableMigrations } from "../support/target.ts";

needs("telemetry");

const root = path.join(import.meta.dirname, "../..");
const read = (name: string): string => readFileSync(path.join(root, name), "utf8");
const page = read("infra/observability.md");

interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly for?: string;
  readonly labels: { readonly severity: string };
  readonly annotations: Readonly<Record<string, string>>;
}

interface RuleFile {
  readonly groups: readonly { readonly name: string; readonly rules: readonly Rule[] }[];
}

interface Dashboard {
  readonly panels: readonly {
    readonly id: number;
    readonly title: string;
    readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
    readonly targets: readonly { readonly expr: string }[];
  }[];
}

/** One series that an expression asks for. */
interface Selected {
  readonly name: string;
  readonly labels: readonly string[];
  /** within `rate` or `increase` */
  readonly grows: boolean;
  /** what expressions around it group and match by */
  readonly around: readonly string[];
}

const readExpressions = `
import json, sys
import promql_parser as p
def selected(e, grows=False, around=()):
    kind = type(e).__name__
    if kind == "VectorSelector":
        return [{"name": e.name, "labels": [m.name for m in e.matchers.matchers], "grows": grows, "around": list(around)}]
    if kind == "MatrixSelector":
        return selected(e.vector_selector, grows, around)
    if kind == "Call":
        return [s for a in e.args for s in selected(a, grows or e.func.name in ("rate", "increase"), around)]
    if kind == "AggregateExpr":
        more = e.modifier.labels if e.modifier else []
        return selected(e.expr, grows, [*around, *more])
    if kind == "BinaryExpr":
        matching = e.modifier.matching.labels if e.modifier and e.modifier.matching else []
        return selected(e.lhs, grows, [*around, *matching]) + selected(e.rhs, grows, [*around, *matching])
    if kind in ("ParenExpr", "UnaryExpr"):
        return selected(e.expr, grows, around)
    return []
print(json.dumps([selected(p.parse(text)) for text in json.loads(sys.argv[1])]))
`;

/** By a parser of PromQL; throws for what is none. */
async function selectionsOf(expressions: readonly string[]): Promise<readonly (readonly Selected[])[]> {
  const ready = expressions.map((text) => text.replaceAll("$__rate_interval", "5m"));
  const { stdout } = await promisify(execFile)(part("telemetry"), [
    "-c",
    readExpressions,
    JSON.stringify(ready),
  ]);
  return JSON.parse(stdout) as readonly (readonly Selected[])[];
}

const names: Readonly<Record<string, { readonly kind: string; readonly labels: readonly string[] }>> = series;
/** what Prometheus adds to everything that it scrapes */
const scraped = ["job", "instance"];

/** What is wrong with an expression about our series; those of others are theirs. */
function problemsOf(selected: readonly Selected[]): readonly string[] {
  return selected.flatMap(({ name, labels, grows, around }) => {
    if (!/^(lockkeeper|process|nodejs)_/.test(name)) return [];
    const base = names[name] === undefined ? name.replace(/_(bucket|sum|count)$/, "") : name;
    const definition = names[base];
    if (definition === undefined || (base !== name) !== (definition.kind === "histogram"))
      return [`there is no ${name}`];
    const known = new Set([...definition.labels, ...scraped, ...(name.endsWith("_bucket") ? ["le"] : [])]);
    const strange = [...labels, ...around].filter((label) => !known.has(label));
    if (strange.length > 0) return [`${name} has no label ${strange.join(" ")}`];
    return grows && definition.kind === "gauge" ? [`${name} does not grow`] : [];
  });
}

describe("alerts and dashboard", () => {
  const files = ["infra/monitoring/prometheus-rules.yaml", "infra/monitoring/kubernetes-rules.yaml"];
  const rules = files
    .flatMap((file) => (parse(read(file)) as RuleFile).groups)
    .flatMap((group) => group.rules);
  const dashboard = JSON.parse(read("infra/monitoring/grafana-dashboard.json")) as Dashboard;

  test("are PromQL over series and labels that there are, with rates only of what counts", async () => {
    const expressions = [
      ...rules.map(({ expr }) => expr),
      ...dashboard.panels.flatMap(({ targets }) => targets.map(({ expr }) => expr)),
    ];
    const selections = await selectionsOf(expressions);
    expect(
      selections.flatMap((selected, index) =>
        problemsOf(selected).map((problem) => `${expressions[index]}: ${problem}`),
      ),
    ).toEqual([]);
    expect(selections.every((selected) => selected.length > 0)).toBe(true);
    // the checker sees what it is for
    const wrong = [
      "lockkeeper_runs",
      "rate(lockkeeper_held[5m])",
      'lockkeeper_held{outcome="x"}',
      "sum by (run) (lockkeeper_paused)",
    ];
    expect((await selectionsOf(wrong)).map((selected) => problemsOf(selected).length)).toEqual([1, 1, 1, 1]);
  });

  test("are named once, say how bad it is, and what to do is on the page", () => {
    const alerts = rules.map(({ alert }) => alert);
    expect(new Set(alerts).size).toBe(alerts.length);
    for (const { alert, labels, annotations } of rules) {
      expect(["warning", "critical"], alert).toContain(labels.severity);
      expect(annotations["summary"], alert).toBeTruthy();
      expect(page.slice(page.indexOf("| alert | look at")), alert).toContain(alert);
    }
  });

  test("use in their words only labels that their expression keeps", () => {
    for (const { alert, expr, annotations } of rules) {
      const kept = /\bby \(([^)]*)\)/.exec(expr)?.[1]?.split(", ");
      const used = [...JSON.stringify(annotations).matchAll(/\$labels\.(\w+)/g)].map(([, label]) => label);
      if (kept !== undefined) for (const label of used) expect(kept, alert).toContain(label);
    }
  });

  test("lie side by side on the dashboard", () => {
    const cells = dashboard.panels.flatMap(({ gridPos: { x, y, w, h } }) =>
      Array.from({ length: w * h }, (_, index) => `${x + (index % w)},${y + Math.floor(index / w)}`),
    );
    expect(new Set(cells).size).toBe(cells.length);
    expect(dashboard.panels.every(({ gridPos: { x, w } }) => x + w <= 24)).toBe(true);
    expect(new Set(dashboard.panels.map(({ id }) => id)).size).toBe(dashboard.panels.length);
  });
});

describe("filters of log lines", () => {
  test("of CloudWatch find the lines that they are for, and no others", async () => {
    const lines = await linesOfRuns();
    const filters = JSON.parse(read("infra/monitoring/cloudwatch-filters.json")) as readonly {
      readonly filterName: string;
      readonly filterPattern: string;
    }[];
    const found = Object.fromEntries(
      filters.map(({ filterName, filterPattern }) => [
        filterName,
        lines.filter((line) => fits(filterPattern, line)).map(({ outcome }) => outcome),
      ]),
    );
    expect(found).toEqual({
      "runs-failed": ["failed", "refused"],
      "needs-attention": [],
      refused: ["refused"],
      unreachable: [],
    });
  });

  test("of Google Cloud ask for fields that lines have", async () => {
    const lines = await linesOfRuns();
    const policies = parseAllDocuments(read("infra/monitoring/google-alert-policies.yaml")).map(
      (document) => {
        expect(document.errors).toEqual([]);
        return document.toJS() as { readonly displayName: string; readonly conditions: readonly object[] };
      },
    );
    expect(new Set(policies.map(({ displayName }) => displayName)).size).toBe(4);
    const asked = JSON.stringify(policies).matchAll(/jsonPayload\.(\w+)/g);
    const known = new Set(
      lines.filter(({ event }) => event === "run.done").flatMap((line) => Object.keys(line)),
    );
    for (const [, field = ""] of asked) expect([...known]).toContain(field);
  });

  test("and the page's lines have the fields of real ones, in their order", async () => {
    const lines = await linesOfRuns();
    const shown = block("json line")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>)
      .filter(({ event }) => event !== "http.request");
    expect(shown).toHaveLength(2);
    for (const line of shown) {
      const real = lines.find(({ event, status }) => event === line["event"] && status === line["status"]);
      const { trace_id, span_id, ...without } = line;
      expect([typeof trace_id, typeof span_id]).toEqual(["string", "string"]);
      expect(Object.keys(without)).toEqual(Object.keys(real ?? {}));
    }
  });
});

describe("the page", () => {
  test("lists every series with its kind, labels and words", () => {
    const rows = [...page.matchAll(/^\| `(\w+)` \| (counter|gauge|histogram) \| (.*?) \| (.*) \|$/gm)];
    expect(
      rows.map(([, name, kind, labels = "", help]) => [
        name,
        kind,
        labels.replaceAll("`", "").split(", ").filter(Boolean),
        help,
      ]),
    ).toEqual(Object.entries(series).map(([name, { kind, labels, help }]) => [name, kind, labels, help]));
  });

  test("lists every event of the log, and no other", () => {
    const sources = globSync("src/**/*.ts", { cwd: root })
      .map((file) => read(file))
      .join("\n");
    const written = [...sources.matchAll(/level\b[^{}]*?event: "([a-z.-]+)"/g)].map(
      ([, event = ""]) => event,
    );
    const runs = [...read("src/executor/event.ts").matchAll(/kind: "([a-z.]+)"/g)].map(
      ([, kind = ""]) => kind,
    );
    const table = page.slice(page.indexOf("| event | when |"), page.indexOf("## Alerts"));
    const listed = [...table.matchAll(/^\| (`[^|]*) \|/gm)].flatMap(([, cell = ""]) =>
      cell.replaceAll("`", "").split(", "),
    );
    const inSource = new Set([...written, ...runs, "event.received", "sweep.looked"]);
    expect(listed.toSorted((a, b) => a.localeCompare(b))).toEqual(
      [...inSource].toSorted((a, b) => a.localeCompare(b)),
    );
  });

  test("has a configuration that is one, and variables that are read", () => {
    expect(parseConfig(block("yaml file=lockkeeper.yaml"))).toMatchObject({
      kind: "config",
      config: { metrics: "127.0.0.1:9464" },
    });
    expect(parse(block("yaml file=prometheus.yml"))).toMatchObject({
      scrape_configs: [{ static_configs: [{ targets: ["127.0.0.1:9464"] }] }],
      rule_files: ["infra/monitoring/prometheus-rules.yaml"],
    });
    for (const line of block("sh env").trim().split("\n")) expect(line).toMatch(/^OTEL_[A-Z_]+=\S+$/);
  });
});

function block(info: string): string {
  const [, text] = new RegExp(`\`\`\`${info}\\n([^]*?)\`\`\``).exec(page) ?? [];
  expect(text, info).toBeDefined();
  return text ?? "";
}

/** The log of a run that succeeds, one that fails, and one that is refused. */
async function linesOfRuns(): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const database = await createDatabase();
  const lines: string[] = [];
  const log = logTo({ write: (line) => lines.push(line) }, () => new Date());
  const target = await openTarget(database.url, tableMigrations(1));
  const run = async (change: Parameters<typeof target.run>[0]): Promise<void> => {
    target.events.length = 0;
    const { runId } = await target.run(change);
    for (const event of target.events) log(recordOf(event, runId, target.name));
  };
  await run({});
  await target.publish([...tableMigrations(1), { path: "2_broken.up.sql", up: "SELECT 1/0;" }]);
  await run({});
  await run({ trigger: "converge" });
  return lines.map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>);
}

/** What CloudWatch's `{ $.a = "b" && $.c = "d" }` says of a line: the part of its language that we use. */
function fits(pattern: string, line: Readonly<Record<string, unknown>>): boolean {
  const inner = /^\{ (.*) \}$/.exec(pattern)?.[1];
  if (inner === undefined) throw new Error(`${pattern} is no pattern of JSON`);
  return inner.split(" && ").every((term) => {
    const match = /^\$\.(\w+) = "([^"]*)"$/.exec(term);
    if (match === null) throw new Error(`${term} is no term that is known here`);
    return line[match[1] ?? ""] === match[2];
  });
}
