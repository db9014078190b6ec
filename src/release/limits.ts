/** How far the clock of whoever publishes or vouches may be ahead of ours, in milliseconds. */
export const clockToleranceMs = 5 * 60_000;

/** Ceilings of everything that comes out of a bucket, in one place; each is enforced before the thing is used. */
export const releaseLimits = {
  /** bytes of `head.json` */
  headBytes: 4_096,
  /** bytes of a release: its bundles, one a line */
  releaseBytes: 1_048_576,
  /** bundles, so signatures, of one release */
  bundles: 16,
  /** bytes of one bundle line */
  bundleBytes: 65_536,
  /** bytes of a signer's certificate; Fulcio's have some 1,700 */
  certificateBytes: 8_192,
  /** log entries, and likewise signed times, of one bundle; there is a use for one or two */
  proofs: 8,
  /** bytes of a timestamp: its bundles, one a line */
  timestampBytes: 131_072,
  /** bytes of a manifest */
  manifestBytes: 32 * 1_048_576,
  /** migrations in one manifest */
  migrations: 100_000,
  /** statements of one body that is not run in one transaction */
  statements: 10_000,
  /** nesting of any JSON text of a release */
  jsonDepth: 16,
  /** bytes of one body */
  blobBytes: 16 * 1_048_576,
  /** bytes of all bodies of one run, which are in memory at once */
  runBytes: 64 * 1_048_576,
  /** bytes of a pack */
  packBytes: 64 * 1_048_576,
  /** characters of a name: stream, environment, version */
  nameLength: 200,
  /** environments that one release is for */
  environments: 32,
  /** bytes of `.migration-registry.yaml` */
  registryBytes: 1_048_576,
  /** services that one migration depends on */
  dependencies: 64,
  /** characters of a migration's description */
  descriptionLength: 500,
  /** keys that one trust names */
  keys: 32,
  /** keys of the root role: two roots' signatures have to fit into the lines of one file */
  rootKeys: 8,
  /** bytes of a root document */
  rootBytes: 65_536,
  /** roots after the pinned one */
  rootSteps: 32,
  /** bytes of a key file or trust file */
  keyFileBytes: 65_536,
} as const;
