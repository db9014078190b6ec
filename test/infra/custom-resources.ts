import * as v from "valibot";
import type { Manifest } from "./manifests.ts";

// There are no schemas of these kinds to be had here. What is written down is what our files use, as the projects' own
// documents have it; that a controller takes it is not shown by any test.

const text = v.pipe(v.string(), v.minLength(1));
const duration = v.pipe(v.string(), v.regex(/^[0-9]+(ms|s|m|h)$/));
const argument = v.strictObject({
  name: text,
  value: v.optional(text),
  valueFrom: v.optional(v.strictObject({ secretKeyRef: v.strictObject({ name: text, key: text }) })),
});

const application = v.strictObject({
  project: text,
  source: v.strictObject({ repoURL: text, path: text, targetRevision: text }),
  destination: v.strictObject({ server: text, namespace: text }),
  syncPolicy: v.strictObject({
    automated: v.strictObject({ prune: v.boolean(), selfHeal: v.boolean() }),
    retry: v.strictObject({
      limit: v.number(),
      backoff: v.strictObject({ duration, factor: v.number(), maxDuration: duration }),
    }),
  }),
});

const web = v.strictObject({
  url: v.pipe(v.string(), v.url()),
  timeoutSeconds: v.number(),
  headers: v.array(v.strictObject({ key: text, value: text })),
  jsonPath: v.pipe(v.string(), v.regex(/^\{\$\..+\}$/)),
});

const analysisTemplate = v.strictObject({
  args: v.array(argument),
  metrics: v.array(
    v.strictObject({
      name: text,
      interval: v.optional(duration),
      count: v.optional(v.number()),
      consecutiveSuccessLimit: v.optional(v.number()),
      failureLimit: v.optional(v.number()),
      inconclusiveLimit: v.optional(v.number()),
      successCondition: v.optional(text),
      failureCondition: v.optional(text),
      provider: v.union([
        v.strictObject({ job: v.strictObject({ spec: v.looseObject({ backoffLimit: v.number() }) }) }),
        v.strictObject({ web }),
      ]),
    }),
  ),
});

const rollout = v.strictObject({
  replicas: v.number(),
  selector: v.strictObject({ matchLabels: v.record(v.string(), text) }),
  workloadRef: v.strictObject({
    apiVersion: v.literal("apps/v1"),
    kind: v.literal("Deployment"),
    name: text,
    scaleDown: v.picklist(["never", "onsuccess", "progressively"]),
  }),
  strategy: v.strictObject({
    canary: v.strictObject({
      steps: v.array(
        v.union([
          v.strictObject({
            analysis: v.strictObject({
              templates: v.array(v.strictObject({ templateName: text })),
              args: v.array(argument),
            }),
          }),
          v.strictObject({ setWeight: v.number() }),
          v.strictObject({ pause: v.strictObject({ duration }) }),
        ]),
      ),
    }),
  }),
});

const fluxKustomization = v.strictObject({
  dependsOn: v.optional(v.array(v.strictObject({ name: text }))),
  sourceRef: v.strictObject({ kind: v.literal("GitRepository"), name: text }),
  path: v.pipe(v.string(), v.startsWith("./")),
  interval: duration,
  force: v.optional(v.boolean()),
  prune: v.boolean(),
  wait: v.literal(true),
  timeout: duration,
});

const gitRepository = v.strictObject({
  url: v.pipe(v.string(), v.url()),
  ref: v.strictObject({ branch: text }),
  interval: duration,
});

const externalSecret = v.strictObject({
  refreshInterval: duration,
  secretStoreRef: v.strictObject({ kind: v.picklist(["SecretStore", "ClusterSecretStore"]), name: text }),
  target: v.strictObject({ name: text, creationPolicy: v.literal("Owner") }),
  data: v.array(
    v.strictObject({ secretKey: text, remoteRef: v.strictObject({ key: text, property: text }) }),
  ),
});

const serviceMonitor = v.strictObject({
  selector: v.strictObject({ matchLabels: v.record(v.string(), text) }),
  endpoints: v.array(
    v.looseObject({ port: text, path: v.pipe(v.string(), v.startsWith("/")), interval: duration }),
  ),
});

const specs: Readonly<Record<string, v.GenericSchema>> = {
  "argoproj.io/v1alpha1 Application": application,
  "argoproj.io/v1alpha1 AnalysisTemplate": analysisTemplate,
  "argoproj.io/v1alpha1 Rollout": rollout,
  "kustomize.toolkit.fluxcd.io/v1 Kustomization": fluxKustomization,
  "source.toolkit.fluxcd.io/v1 GitRepository": gitRepository,
  "external-secrets.io/v1 ExternalSecret": externalSecret,
  "monitoring.coreos.com/v1 ServiceMonitor": serviceMonitor,
};

/** The kinds whose shape is written down here, `apiVersion kind`. */
export const customKinds: readonly string[] = Object.keys(specs);

/** What of an object is not as its project's documents have it. */
export function customProblems(manifest: Manifest): readonly string[] {
  const kind = `${manifest.apiVersion} ${manifest.kind}`;
  const schema = specs[kind];
  if (schema === undefined) return [`${kind} is not known here`];
  const parsed = v.safeParse(schema, manifest["spec"]);
  const name = `${kind} ${manifest.metadata.name}`;
  return (parsed.issues ?? []).map((issue) => `${name}: ${v.getDotPath(issue) ?? ""} ${issue.message}`);
}
