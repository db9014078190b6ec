import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import {
  detectResources,
  type Resource,
  resourceAttributesEnvDetector,
  resourceFromAttributes,
  serviceNameEnvDetector,
} from "@opentelemetry/resources";
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  ParentBasedSampler,
  type Sampler,
  TraceIdRatioBasedSampler,
} from "@opentelemetry/sdk-trace";

type Variables = Readonly<Record<string, string | undefined>>;

/** By https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/: an end point is there, and nobody says `none`. */
export function isWanted(signal: "TRACES" | "METRICS", variables: Variables): boolean {
  const exporter = variables[`OTEL_${signal}_EXPORTER`] ?? "";
  const endpoint =
    variables[`OTEL_EXPORTER_OTLP_${signal}_ENDPOINT`] || variables["OTEL_EXPORTER_OTLP_ENDPOINT"] || "";
  return endpoint !== "" && (exporter === "" || exporter.split(",").includes("otlp"));
}

/** Why nothing would arrive, in words; undefined where nothing is known to be in the way. */
export function protocolProblem(variables: Variables): string | undefined {
  if (variables["OTEL_EXPORTER_OTLP_PROTOCOL"] !== "grpc") return undefined;
  return "OTEL_EXPORTER_OTLP_PROTOCOL is grpc, which lockkeeper does not speak: it sends OTLP over HTTP, for which collectors listen on port 4318";
}

/** What this process is; what the standard's variables say of it comes first. */
export function resourceOf(variables: Variables, version: string): Resource {
  const name = variables["AWS_LAMBDA_FUNCTION_NAME"] ?? variables["K_SERVICE"] ?? variables["CLOUD_RUN_JOB"];
  return resourceFromAttributes({
    "service.name": "lockkeeper",
    "service.version": version,
    // two processes must not go on counting each other's runs
    "service.instance.id": randomUUID(),
    "host.name": hostname(),
    ...(name === undefined ? {} : { "faas.name": name }),
  }).merge(detectResources({ detectors: [resourceAttributesEnvDetector, serviceNameEnvDetector] }));
}

const samplers = new Map<string, (ratio: number) => Sampler>([
  ["always_on", () => new AlwaysOnSampler()],
  ["always_off", () => new AlwaysOffSampler()],
  ["traceidratio", (ratio) => new TraceIdRatioBasedSampler(ratio)],
  ["parentbased_always_on", () => new ParentBasedSampler({ root: new AlwaysOnSampler() })],
  ["parentbased_always_off", () => new ParentBasedSampler({ root: new AlwaysOffSampler() })],
  [
    "parentbased_traceidratio",
    (ratio) => new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(ratio) }),
  ],
]);

/** Which traces are sent. What is not known is as if nothing were said, as the standard wants it. */
export function samplerOf(variables: Variables): Sampler {
  const ratio = Number(variables["OTEL_TRACES_SAMPLER_ARG"] || 1);
  const isRatio = ratio >= 0 && ratio <= 1;
  const named = samplers.get(variables["OTEL_TRACES_SAMPLER"] ?? "");
  return named?.(isRatio ? ratio : 1) ?? new ParentBasedSampler({ root: new AlwaysOnSampler() });
}

/** Milliseconds: a timer that is told more goes off at once. */
const longestMs = 2 ** 31 - 1;

/** Milliseconds of a variable. What is no time is as if nothing were said. */
export function timeOf(text: string | undefined): number | undefined {
  const ms = Number(text);
  return ms > 0 && ms <= longestMs ? ms : undefined;
}
