import { expect, onTestFinished, test } from "vitest";
import type { ForeignTool } from "../../src/history/foreign.ts";
import type { FormatName } from "../../src/migration/format/format.ts";
import { needs } from "../support/parts.ts";
import type { PeerResult, PeerSite } from "../support/peer.ts";
import { tempFolder } from "../support/release.ts";
import { back, makeSite, type PostgresSite } from "./site.ts";

/** A tool, the folder that it wants, and how it is told to go up and back. */
export interface Case {
  readonly tool: ForeignTool;
  readonly part: "goose" | "dbmate" | "flyway" | "atlas" | "node-pg-migrate" | "umzug";
  readonly format: FormatName;
  readonly table: string;
  /** the files of the migration that makes table `t<n>` */
  files(n: number): Readonly<Record<string, string>>;
  /** where the tool wants other files than we do: its own, in a folder of their own */
  theirFiles?(n: number): Readonly<Record<string, string>>;
  up(site: PeerSite): Promise<PeerResult>;
  /** absent where it knows no way back */
  down?(site: PeerSite): Promise<PeerResult>;
  /** before it takes a folder with new files */
  prepare?(site: PeerSite): Promise<PeerResult>;
}

/** A file with both ways, under these lines. */
export const both = (n: number, up: string, down: string) =>
  `${up}\nCREATE TABLE t${n} (id int);\n\n${down}\nDROP TABLE t${n};\n`;

async function theirFolder({ theirFiles }: Case, site: PostgresSite): Promise<string> {
  if (theirFiles === undefined) return site.folder;
  const folder = await tempFolder();
  onTestFinished(() => folder[Symbol.asyncDispose]());
  return folder.path;
}

const rowsOf = (site: PostgresSite, { table }: Case) =>
  site.database.query(`select to_jsonb(t) as row from ${table} t`);

/** What every tool must be able to do: be taken over from, and take over again. */
export function takesOver(own: Case): void {
  needs(own.part);

  test("is taken over from, kept in step, and takes over again with nothing to do", async () => {
    const site = await makeSite({ ...own.files(1), ...own.files(2) }, { format: own.format });
    const place = { url: site.url, folder: await theirFolder(own, site) };
    const add = async (...numbers: readonly number[]) => {
      for (const n of numbers) {
        await site.write(own.files(n));
        await site.write(own.theirFiles?.(n) ?? {}, place.folder);
      }
      await own.prepare?.(place);
    };
    const theirs = async (result: Promise<PeerResult>) => {
      const { code, stdout, stderr } = await result;
      expect(code === 0 ? "" : stdout + stderr).toBe("");
    };
    await add(1, 2);
    await theirs(own.up(place));

    const { finding, changes } = await site.adopt({ keepsInStep: true });
    expect(finding).toMatchObject({ place: { tool: own.tool }, misfits: [] });
    expect(finding.applied.map(({ assumed }) => assumed)).toEqual([null, null]);
    expect(changes).toHaveLength(2);

    // Ours makes the third; the real tool finds it done, and makes the fourth.
    await add(3);
    expect(await site.run()).toMatchObject({ outcome: "applied", error: null });
    const rows = await rowsOf(site, own);
    await theirs(own.up(place));
    expect(await rowsOf(site, own)).toEqual(rows);
    await add(4);
    await theirs(own.up(place));
    expect(await site.run()).toMatchObject({ error: { code: "ADOPTION" } });
    expect((await site.adopt()).changes).toMatchObject([{ direction: "up", assumed: null }]);
    expect(await site.run()).toMatchObject({ outcome: "noop" });

    if (own.down !== undefined) {
      // Back by ours, forth by the real tool, and the other way round.
      expect(await site.run(back(1))).toMatchObject({ outcome: "rolled_back" });
      await theirs(own.up(place));
      expect((await site.adopt()).changes).toMatchObject([{ direction: "up" }]);
      await theirs(own.down(place));
      expect((await site.adopt()).changes).toMatchObject([{ direction: "down" }]);
      expect(await site.run()).toMatchObject({ outcome: "applied" });
      await theirs(own.up(place));
    }
    expect(await site.database.query("select from pg_tables where tablename ~ '^t[0-9]$'")).toHaveLength(4);
  });
}
