import type { FormatName, FormatSettings } from "../../src/migration/format/format.ts";
import type { PartName } from "../support/parts.ts";
import {
  atlas,
  dbmate,
  flyway,
  golangMigrate,
  goose,
  type PeerResult,
  type PeerSite,
} from "../support/peer.ts";

/** A tool whose folders we read, and how it is told to run all of one. */
export interface Tool {
  readonly format: FormatName;
  readonly part: PartName;
  /** pg_dump's patterns for what it keeps for itself */
  readonly own: { readonly tables?: string; readonly schema?: string };
  up(site: PeerSite): Promise<PeerResult>;
  /** absent where it knows no way down, or sells it */
  down?(site: PeerSite, migrations: number): Promise<PeerResult>;
  /** what the folder's text refers to, as the tool is given it above */
  readonly settings?: Partial<Pick<FormatSettings, "placeholders" | "variables">>;
}

/** For goose's ENVSUB; of the folder's other variable, both take what it says itself. */
const variables = { ORDERS_PLACE: "every ''where''" };

/** One for each format. */
export const tools: readonly Tool[] = [
  {
    format: "golang-migrate",
    part: "golang-migrate",
    own: { tables: "public.schema_migrations" },
    up: (site) => golangMigrate(site, "up"),
    down: (site) => golangMigrate(site, "down", "-all"),
  },
  {
    format: "goose",
    part: "goose",
    own: { tables: "public.goose_db_version*" },
    settings: { variables },
    up: (site) => goose({ ...site, variables }, "up"),
    down: (site) => goose({ ...site, variables }, "reset"),
  },
  {
    format: "dbmate",
    part: "dbmate",
    own: { tables: "public.schema_migrations" },
    up: (site) => dbmate(site, "migrate"),
    down: (site, migrations) => repeat(migrations, () => dbmate(site, "rollback")),
  },
  {
    format: "flyway",
    part: "flyway",
    own: { tables: "public.flyway_schema_history" },
    settings: { placeholders: { who: "alice" } },
    // Its lock in an open transaction would block a concurrent index for ever.
    up: (site) => flyway(site, "-postgresql.transactional.lock=false", "-placeholders.who=alice", "migrate"),
  },
  {
    format: "atlas",
    part: "atlas",
    own: { schema: "atlas_schema_revisions" },
    up: (site) => atlas(site, "apply"),
  },
];

/** Until one fails: the last one's answer. */
async function repeat(times: number, act: () => Promise<PeerResult>): Promise<PeerResult> {
  for (let done = 1; done < times; done += 1) {
    const result = await act();
    if (result.code !== 0) return result;
  }
  return act();
}
