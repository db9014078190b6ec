import type { KeptManifest, SignedOptions } from "./fetch-signed.ts";
import { HeadReader } from "./head-reader.ts";
import { nothingPublished } from "./head.ts";
import type { ReleaseProvider } from "./release.ts";

/**
 * The signed releases under a prefix. What the bucket answers is believed only as far as `verify.ts` proves it,
 * and no object is read twice: the bytes that were verified are the bytes that are used. A small manifest is kept for
 * whoever asks for the same release again, such as a status that is looked at all day; its signatures never are.
 *
 * Requests: one for `head`, two more for `fetch` (its release and manifest; with an expected digest no head is read, else
 * a timestamp at the same time where the trust wants one), one for each body, or one for a pack of them.
 * What fetches and verifies is loaded when something is fetched: most runs find by the head that nothing is to be.
 */
export function signedReleases(options: SignedOptions): ReleaseProvider {
  const head = new HeadReader(options.source);
  const kept: KeptManifest = { release: undefined };
  return {
    kind: "signed",
    stream: options.stream,
    url: options.source.url,
    head: async (signal) => (await head.read(signal))?.digest,
    fetch: async (context, signal) => {
      const digest = context.expected ?? (await head.take(signal))?.digest;
      if (digest === undefined) throw nothingPublished(options.source.url);
      const { fetchSigned } = await fetching();
      const release = await fetchSigned(options, context, digest, signal, kept);
      if (release.stale?.code !== "STALE_RELEASE") return release;
      // the newer one may have been published, and vouched for, since the head was read
      const newest = (await head.take(signal))?.digest ?? digest;
      return newest === digest ? release : fetchSigned(options, context, newest, signal, kept);
    },
    bodies: async (release, bodies, signal) =>
      (await fetching()).fetchBodies(options.source, release, bodies, signal),
  };
}

function fetching() {
  return import("./fetch-signed.ts");
}
