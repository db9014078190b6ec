import type { StatementCheckpoint } from "../../../history/entry.ts";
import type { ProbeVerdict } from "../../session.ts";
import type { Connection } from "../connection.ts";
import type { Workbench } from "../workbench.ts";

/** What a probe saw before its statement was sent: all that it needs afterwards, also when the file has changed since. */
export type Before = Extract<StatementCheckpoint, { readonly kind: "sent" }>["before"];

/** Where a probe looks: beside a standing fence, on the connection and with the settings that the statement has. */
export interface ProbeSite {
  readonly bench: Workbench;
  readonly connection: Connection;
}

/** How to find out about one kind of statement that cannot run in a transaction. */
export interface Probe {
  /** a failed attempt may leave something behind that {@link Probe.settle} clears away */
  readonly leavesRests: boolean;

  /** Before the statement is sent: reads what it is about, and clears away what would stand in its way. */
  look(site: ProbeSite, sql: string): Promise<Before>;

  /**
   * Once no backend works on the statement any more: whether it took effect. What is half done is finished, or cleared away.
   *
   * @returns undefined when nobody can tell
   */
  settle(site: ProbeSite, before: Before): Promise<ProbeVerdict | undefined>;

  /** After the server said that it succeeded: false when that was no more than a notice, and it has to be sent again. */
  hasResult?(site: ProbeSite, before: Before): Promise<boolean>;
}
