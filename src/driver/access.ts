import type { Engine } from "../migration/migration.ts";

/** How a database is reached whose credentials are kept elsewhere, and change while this process lives. */
export interface DatabaseAccess {
  readonly engine: Engine;
  /** for people, until the URL is known */
  readonly shown: string;
  /**
   * Its URL; with a password, unless `token` stands for one. Asked before every attempt to connect, so it remembers.
   *
   * @param refused - the URL whose user or password the server did not take: to be asked for again where it is kept, unless it has changed since
   * @throws RunnerError `DATABASE_UNAVAILABLE`, `DATABASE_DENIED`, `CONFIG` - where it is kept, it cannot be had
   */
  url(refused?: string): Promise<string>;
  readonly token?: LogInToken;
}

/** What stands for a password, and is made anew for every connection. */
export interface LogInToken {
  /** what the token is made for and the server's certificate has to name, where the database is reached by another name; default: the URL's */
  readonly endpoint?: { readonly host: string; readonly port: number };
  /** a proxy on this machine may have it without TLS, over a Unix socket or loopback: it connects for us with its own */
  readonly mayStayLocal: boolean;
  /** what to do about a server that does not take it */
  readonly hint: string;
  /** @throws RunnerError `DATABASE_UNAVAILABLE`, `DATABASE_DENIED`, `CONFIG` */
  make(to: { readonly host: string; readonly port: number; readonly user: string }): Promise<string>;
}

/** Certificate authorities of Amazon RDS, PEM; loaded when a connection needs them. */
export type RdsRoots = () => Promise<readonly string[]>;
