import fc from "fast-check";
import * as v from "valibot";
import { describe, expect, test } from "vitest";
import { flywayChecksum } from "../../../src/migration/format/flyway-checksum.ts";
import { flyway } from "../../../src/migration/format/flyway.ts";
import { compareVersions } from "../../../src/migration/version.ts";
import {
  bodyVector,
  failFolder,
  goodFolder,
  parseVector,
  readVector,
  refusalOf,
  settingsWith,
  vectorNames,
} from "./format-vector.ts";

const format = flyway(settingsWith());

describe("Flyway's layout", () => {
  test.each(vectorNames("flyway", "good_"))("takes %s", (name) => {
    const { names, ignored, ...expected } = readVector(goodFolder, "flyway", name);
    const layout = format.read(names);
    expect(layout).toEqual({ ...expected, ignored: layout.ignored });
    expect(layout.ignored.map((file) => file.name).toSorted()).toEqual(ignored);
    for (const { reason } of layout.ignored) expect(reason).not.toBe("");
  });

  test.each(vectorNames("flyway", "fail_"))("refuses %s", async (name) => {
    const { names, code, mentions } = readVector(failFolder, "flyway", name);
    const error = await refusalOf(() => format.read(names));
    expect(error.code).toBe(code);
    for (const mention of mentions) expect(`${error.message}\n${error.hint}`).toContain(mention);
    expect(error.hint).toBeTypeOf("string");
  });

  test("accounts for every name of a folder that it takes", async () => {
    const name = fc.oneof(
      fc
        .tuple(fc.constantFrom("V", "V", "U", "B"), fc.nat(6), fc.constantFrom("", ".0", ".1", "_2"))
        .map(([prefix, major, minor]) => `${prefix}${major}${minor}__x.sql`),
      fc.constantFrom("R__a.sql", "R__b.sql", "README.md", ".x", "V1__x.sql.conf", "schema.sql"),
      fc.string(),
    );
    await fc.assert(
      fc.asyncProperty(fc.uniqueArray(name, { maxLength: 6 }), async (names) => {
        const found = await namesFound(names);
        expect([...found].toSorted()).toEqual(names.toSorted());
      }),
      { numRuns: 2_000 },
    );
  });
});

describe("a script of Flyway's", () => {
  const vectors = vectorNames("flyway", "body_").map((name) => ({
    name,
    vector: readVector(bodyVector, "flyway", name),
  }));

  test.each(vectors.filter(({ vector }) => vector.code === undefined))(
    "is taken: $name",
    async ({ vector }) => {
      const parsed = await parseVector(flyway(settingsWith(vector.placeholders)), vector);
      expect(parsed.up?.bytes.toString("utf8")).toBe(vector.up);
      expect(parsed.down?.bytes.toString("utf8")).toBe(vector.down);
      expect((parsed.up ?? parsed.down)?.tx).toBe(vector.tx);
      expect(parsed.warnings).toEqual(vector.warnings);
    },
  );

  test.each(vectors.filter(({ vector }) => vector.code !== undefined))(
    "is refused: $name",
    async ({ vector }) => {
      const error = await refusalOf(() => parseVector(flyway(settingsWith(vector.placeholders)), vector));
      expect(error.code).toBe(vector.code);
      for (const mention of vector.mentions) expect(`${error.message}\n${error.hint}`).toContain(mention);
    },
  );

  test("is summed up as it is, before its placeholders are filled in, unless it runs again when it changes", async () => {
    const bytes = Buffer.from("SELECT '${who}';\n");
    const parsed = async (name: string) =>
      flyway(settingsWith({ who: "alice" })).parse({ name, bytes }, new Map());
    const raw = flywayChecksum(bytes) >>> 0;
    expect((await parsed("V1__a.sql")).up?.crc32).toBe(raw);
    expect((await parsed("U1__a.sql")).down?.crc32).toBe(raw);
    expect((await parsed("R__a.sql")).up?.crc32).toBe(flywayChecksum(Buffer.from("SELECT 'alice';\n")) >>> 0);
  });

  test("keeps its very bytes where there is nothing to replace, also such as are no text", async () => {
    const bytes = Buffer.from([0x2d, 0x2d, 0xff, 0x0a]);
    const { up } = await format.parse({ name: "V1__a.sql", bytes }, new Map());
    expect(up?.bytes).toBe(bytes);
  });

  test("with many placeholders is read in linear time", async () => {
    const text = "SELECT '${who}', $$ $ $$;\n".repeat(200_000);
    const { up } = await flyway(settingsWith({ who: "x" })).parse(
      { name: "V1__a.sql", bytes: Buffer.from(text) },
      new Map(),
    );
    expect(up?.bytes.toString("utf8")).toBe(text.replaceAll("${who}", "x"));
  });
});

describe("Flyway's checksum", () => {
  const checksums = readVector(
    v.array(
      v.strictObject({
        text: v.string(),
        checksum: v.number(),
        placeholders: v.optional(v.record(v.string(), v.string()), {}),
      }),
    ),
    "flyway",
    "checksums.json",
  );

  test.each(checksums)("is $checksum (vector %#)", async ({ text, checksum, placeholders }) => {
    if (Object.keys(placeholders).length === 0) expect(flywayChecksum(Buffer.from(text))).toBe(checksum);
    // what the release says of the file, whatever is sent of it
    const file = { name: "R__v.sql", bytes: Buffer.from(text) };
    const { up } = await flyway(settingsWith(placeholders)).parse(file, new Map());
    expect((up?.crc32 ?? 0) | 0).toBe(checksum);
  });
});

/** Every name that the format has something to say about, or all of them where it refuses the folder. */
async function namesFound(names: readonly string[]): Promise<readonly string[]> {
  try {
    const { migrations, repeatable, companions, ignored } = format.read(names);
    const inOrder = migrations.every(
      ({ version }, i) => i === 0 || compareVersions(migrations[i - 1]?.version ?? "", version) < 0,
    );
    expect(inOrder).toBe(true);
    return [
      ...migrations.flatMap(({ up, down, checkpoint }) =>
        [up, down, checkpoint].filter((n) => n !== undefined),
      ),
      ...repeatable.map(({ path }) => path),
      ...companions,
      ...ignored.map((file) => file.name),
    ];
  } catch {
    const error = await refusalOf(() => format.read(names));
    expect(error.hint).toBeTypeOf("string");
    return names;
  }
}
