/**
 * Names of the objects of one stream under its prefix. None is derived from a migration's file name,
 * so nothing in a name can travel, fold or collide; `sha256` is lower-case hex.
 */
export const layout = {
  /** the newest release: written last and by compare-and-swap, so its appearance is the publication */
  head: "head.json",
  release: (sha256: string) => `releases/sha256-${sha256}.sigstore.jsonl`,
  manifest: (sha256: string) => `manifests/sha256-${sha256}.json`,
  blob: (sha256: string) => `blobs/sha256-${sha256}`,
  pack: (sha256: string) => `packs/sha256-${sha256}`,
} as const;
