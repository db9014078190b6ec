import { series, type Sample, type Series, type SeriesName } from "./series.ts";

/** Of the text that {@link exposed} makes: https://prometheus.io/docs/instrumenting/exposition_formats/ */
export const expositionType = "text/plain; version=0.0.4; charset=utf-8";

/** What one series came to for one set of labels. */
export interface Count {
  readonly labels: Readonly<Record<string, string>>;
  /** a counter's value */
  sum: number;
  count: number;
  /** how many were not above each bound */
  readonly buckets: number[];
}

/** All series in Prometheus' text form, those without a value by their description alone. */
export function exposed(
  counts: ReadonlyMap<SeriesName, ReadonlyMap<string, Count>>,
  samples: readonly Sample[],
): string {
  const byName = Map.groupBy(samples, ({ name }) => name);
  return (Object.keys(series) as SeriesName[])
    .flatMap((name) => [
      `# HELP ${name} ${escapedHelp(series[name].help)}`,
      `# TYPE ${name} ${series[name].kind}`,
      ...[...(counts.get(name)?.values() ?? [])].flatMap((count) => countLines(name, series[name], count)),
      ...(byName.get(name) ?? []).map(({ labels, value }) => line(name, labels, value)),
      "",
    ])
    .join("\n");
}

function countLines(name: SeriesName, definition: Series, count: Count): readonly string[] {
  const { labels } = count;
  if (definition.kind !== "histogram") return [line(name, labels, count.sum)];
  return [
    ...definition.buckets.map((bound, index) =>
      line(`${name}_bucket`, { ...labels, le: shown(bound) }, count.buckets[index] ?? 0),
    ),
    line(`${name}_bucket`, { ...labels, le: "+Inf" }, count.count),
    line(`${name}_sum`, labels, count.sum),
    line(`${name}_count`, labels, count.count),
  ];
}

function line(name: string, labels: Readonly<Record<string, string>>, value: number): string {
  const pairs = Object.entries(labels).map(([label, text]) => `${label}="${escapedLabel(text)}"`);
  return `${name}${pairs.length === 0 ? "" : `{${pairs.join(",")}}`} ${shown(value)}`;
}

function shown(value: number): string {
  if (Number.isFinite(value)) return String(value);
  return Number.isNaN(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf";
}

function escapedHelp(text: string): string {
  return text.replaceAll("\\", String.raw`\\`).replaceAll("\n", String.raw`\n`);
}

function escapedLabel(text: string): string {
  return escapedHelp(text).replaceAll('"', String.raw`\"`);
}
