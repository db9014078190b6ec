import { execFile } from "node:child_process";
import { part } from "../support/parts.ts";

/** One family of metrics, as Prometheus' own Python reader understood it. */
export interface Family {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  readonly samples: readonly {
    readonly name: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly value: number;
  }[];
}

const readText = `
import json, sys
from prometheus_client.parser import text_string_to_metric_families
print(json.dumps([{"name": f.name, "type": f.type, "help": f.documentation,
  "samples": [{"name": s.name, "labels": s.labels, "value": s.value} for s in f.samples]}
  for f in text_string_to_metric_families(sys.stdin.read())]))
`;

/** Reads the text form; what Prometheus' reader lets pass and no Prometheus would take is an error, too. */
export async function readMetrics(text: string): Promise<readonly Family[]> {
  const families = JSON.parse(await python(readText, text)) as readonly Family[];
  const seen = new Set<string>();
  for (const { name, type, samples } of families) {
    for (const sample of samples) {
      const key = `${sample.name} ${labelsIn(sample.labels)}`;
      if (seen.has(key)) throw new Error(`${key} stands twice`);
      seen.add(key);
      if (!/^[a-z_]+$/.test(sample.name)) throw new Error(`${sample.name} is no name`);
    }
    if (type === "histogram") assertHistogram(name, samples);
  }
  return families;
}

function assertHistogram(name: string, samples: Family["samples"]): void {
  const without = (labels: Readonly<Record<string, string>>): string =>
    labelsIn(Object.fromEntries(Object.entries(labels).filter(([label]) => label !== "le")));
  for (const [labels, some] of Map.groupBy(samples, (sample) => without(sample.labels))) {
    const buckets = some.filter((sample) => sample.name === `${name}_bucket`);
    const grow = (values: readonly number[]): boolean =>
      values.every((value, index) => index === 0 || value >= (values[index - 1] ?? 0));
    const count = some.find((sample) => sample.name === `${name}_count`)?.value;
    const last = buckets.at(-1);
    const isWhole =
      grow(buckets.map((sample) => Number(sample.labels["le"]?.replace("+Inf", "Infinity")))) &&
      grow(buckets.map(({ value }) => value)) &&
      last?.labels["le"] === "+Inf" &&
      last.value === count &&
      some.some((sample) => sample.name === `${name}_sum`);
    if (!isWhole) throw new Error(`${name}${labels} is no histogram`);
  }
}

/** The value of a series with these labels, and no others; undefined where there is none. */
export function valueOf(
  families: readonly Family[],
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number | undefined {
  const wanted = labelsIn(labels);
  return families
    .flatMap(({ samples }) => samples)
    .find((sample) => sample.name === name && labelsIn(sample.labels) === wanted)?.value;
}

/** Whatever the order of the labels. */
function labelsIn(labels: Readonly<Record<string, string>>): string {
  return JSON.stringify(
    Object.keys(labels)
      .toSorted((a, b) => a.localeCompare(b))
      .map((label) => [label, labels[label]]),
  );
}

const readOtlp = `
import json, sys
from google.protobuf.json_format import Parse, MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
kinds = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}
for one in json.load(sys.stdin):
    Parse(one["body"], kinds[one["path"]]())
`;

/** Holds what was sent to a collector against OpenTelemetry's own messages: an unknown field is an error. */
export async function assertOtlp(
  received: readonly { readonly path: string; readonly body: string }[],
): Promise<void> {
  await python(readOtlp, JSON.stringify(received));
}

function python(script: string, input: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const child = execFile(part("telemetry"), ["-c", script], { maxBuffer: 64e6 }, (error, stdout) => {
    if (error === null) resolve(stdout);
    else reject(error);
  });
  child.stdin?.end(input);
  return promise;
}
