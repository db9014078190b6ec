/**
 * Names of the objects of one stream under its prefix. None is derived from a migration's file name,
 * so nothing in a name can travel, fold or collide; `sha256` is lower-case hex.
 */
export const layout = {
  /** the newest release: written last and by compare-and-swap, so its appearance is the publication */
  head: "head.json",
  /** somebody's word that the head is the newest, where the trust wants it; replaced again and again */
  timestamp: "timestamp.sigstore.jsonl",
  release: (sha256: string) => `releases/sha256-${sha256}.sigstore.jsonl`,
  manifest: (sha256: string) => `manifests/sha256-${sha256}.json`,
  blob: (sha256: string) => `blobs/sha256-${sha256}`,
  pack: (sha256: string) => `packs/sha256-${sha256}`,
  /** written after its signatures, so its appearance is the publication */
  root: (version: number) => `root/${version}.root.json`,
  rootBundles: (version: number) => `root/${version}.root.sigstore.jsonl`,
} as const;
