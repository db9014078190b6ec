import { RunnerError } from "../../error.ts";
import type { DatabaseAccess, RdsRoots } from "../access.ts";
import { parseAddress, type Address } from "./address.ts";

/** Where a database is and how to log in, as far as that is known by now. */
export interface Whereabouts {
  /** for people */
  readonly shown: string;
  /** what to do about a server that does not take what stands for a password; absent where it is a password */
  readonly hint?: string;
  /**
   * @param refused - an address whose user or password the server did not take; the very same comes back where there is no other
   * @throws RunnerError `USAGE`, `CONFIG`, `DATABASE_UNAVAILABLE`, `DATABASE_DENIED`
   */
  address(refused?: Address): Promise<Address>;
}

/**
 * A database's whereabouts: those of a URL, or what its access says whenever it is asked.
 *
 * @throws RunnerError `USAGE` - a URL that cannot be read
 */
export function whereaboutsOf(access: string | DatabaseAccess, roots?: RdsRoots): Whereabouts {
  if (typeof access === "string") return fixed(parseAddress(access), roots);
  const { token } = access;
  const urls = new WeakMap<Address, string>();
  let last: { readonly url: string; readonly shown: string; readonly whole: Promise<Address> } | undefined;
  return {
    get shown() {
      return last?.shown ?? access.shown;
    },
    ...(token === undefined ? {} : { hint: token.hint }),
    async address(refused) {
      const url = await access.url(refused === undefined ? undefined : urls.get(refused));
      // One address for one URL, also when several ask at once: each has a pool of its own.
      if (url !== last?.url) {
        const parsed = parseAddress(url, token);
        last = { url, shown: parsed.shown, whole: withRoots(parsed, roots) };
      }
      const address = await last.whole;
      urls.set(address, url);
      return address;
    },
  };
}

function fixed(parsed: Address, roots: RdsRoots | undefined): Whereabouts {
  let whole: Promise<Address> | undefined;
  return { shown: parsed.shown, address: () => (whole ??= withRoots(parsed, roots)) };
}

async function withRoots(address: Address, roots: RdsRoots | undefined): Promise<Address> {
  if (!address.needsRdsRoots) return address;
  if (roots === undefined)
    throw new RunnerError(
      "CONFIG",
      `${address.shown}: nothing here knows the certificate authorities of RDS`,
      {
        hint: "name their file with sslrootcert",
      },
    );
  return { ...address, tlsOptions: { ...address.tlsOptions, ca: [...(await roots())] } };
}
