import { inspect } from "node:util";
import { beforeEach, describe, expect, test } from "vitest";
import {
  type Answer,
  credentialsByTheSdk,
  dialects,
  halfOf,
  hasty,
  impatient,
  object,
  openFaulty,
  reset,
  send,
  silence,
  startFaultyStore,
} from "./faulty-store.ts";

const { signal } = new AbortController();
const maxBytes = 100_000;
const body = Buffer.alloc(50_000, "SELECT 1;");

describe.for(["s3", "s3 by the SDK", "gcs"] as const)("a faulty store, %s", (name) => {
  const kind = name === "gcs" ? "gcs" : "s3";
  if (name === "s3 by the SDK") beforeEach(credentialsByTheSdk);
  const dialect = dialects[kind];

  describe("reading", () => {
    const read = (answers: readonly Answer[], patience = hasty) =>
      startFaultyStore(kind, answers, patience).then(async ({ source, requests }) => ({
        outcome: await source.read("a.sql", { maxBytes }, signal).catch((error: unknown) => error),
        requests: requests.length,
      }));

    test("asks once when all is well", async () => {
      expect(await read([object(kind, "SELECT 1;")])).toMatchObject({
        outcome: { bytes: Buffer.from("SELECT 1;") },
        requests: 1,
      });
    });

    test("does not ask again when it was denied", async () => {
      expect(await read([dialect.error(403, "AccessDenied")])).toMatchObject({
        outcome: {
          code: "SOURCE_DENIED",
          message: containing("(403 AccessDenied)"),
          fields: { status: 403 },
        },
        requests: 1,
      });
    });

    test("tells a missing bucket from a missing object", async () => {
      expect(await read([send(404, words(kind, dialect.noBucket), type(kind))])).toMatchObject({
        outcome: { code: "SOURCE_NOT_FOUND" },
        requests: 1,
      });
      expect(await read([send(404, words(kind, dialect.noObject), type(kind))])).toEqual({
        outcome: undefined,
        requests: 1,
      });
    });

    test("takes a 404 in a stranger's words for a wrong endpoint", async () => {
      const { outcome } = await read([send(404, "<html>nothing here</html>", "text/html")]);
      expect(outcome).toMatchObject({ code: "SOURCE_NOT_FOUND" });
    });

    test("asks again after a server's error, and gives what comes then", async () => {
      for (const status of [408, 429, 500, 502, 503, 504]) {
        const answers = [dialect.error(status, "InternalError"), object(kind, "SELECT 1;")];
        expect(await read(answers)).toMatchObject({
          outcome: { bytes: Buffer.from("SELECT 1;") },
          requests: 2,
        });
      }
    });

    test("gives up after as many tries as it may, with the number of them", async () => {
      expect(await read([dialect.error(503, "SlowDown")])).toMatchObject({
        outcome: {
          code: "SOURCE_UNAVAILABLE",
          message: containing("(503 SlowDown), tried 3 times"),
          fields: { attempts: 3, status: 503 },
        },
        requests: 3,
      });
    });

    // How many of these requests a busy machine's store hears of before they are given up, nobody knows.
    test("gives up a store that is silent, or falls silent", async () => {
      const stalled = halfOf(kind, body, "content-length", () => {});
      for (const answer of [silence, stalled]) {
        expect((await read([answer], impatient)).outcome).toMatchObject({
          code: "SOURCE_UNAVAILABLE",
          fields: { attempts: 3 },
        });
      }
    });

    test("reads again when the store was silent only once", async () => {
      const untilItComes = { ...impatient, attempts: 1_000 };
      const { outcome, requests } = await read([silence, object(kind, "late")], untilItComes);
      expect(outcome).toMatchObject({ bytes: Buffer.from("late") });
      expect(requests).toBeGreaterThanOrEqual(2);
    });

    test.for(["content-length", "chunked"] as const)(
      "never takes a body cut in the middle for a whole one (%s)",
      async (framing) => {
        const cut = halfOf(kind, body, framing, (response) => response.socket?.resetAndDestroy());
        expect(await read([cut])).toMatchObject({ outcome: { code: "TRUNCATED" }, requests: 3 });
        const closed = halfOf(kind, body, framing, (response) => response.socket?.end());
        expect(await read([closed])).toMatchObject({ outcome: { code: "TRUNCATED" }, requests: 3 });
        const answers = [cut, closed, object(kind, body.toString())];
        expect(await read(answers)).toMatchObject({ outcome: { bytes: body }, requests: 3 });
      },
    );

    test("reads again when the bytes do not fit the store's checksum", async () => {
      const damaged = object(kind, "SELECT 2;", dialect.checksum(Buffer.from("SELECT 1;")));
      expect(await read([damaged])).toMatchObject({ outcome: { code: "TRUNCATED" }, requests: 3 });
      const sound = object(kind, "SELECT 1;", dialect.checksum(Buffer.from("SELECT 1;")));
      expect(await read([damaged, sound])).toMatchObject({
        outcome: { bytes: Buffer.from("SELECT 1;") },
        requests: 2,
      });
    });

    test("asks again when the connection breaks before the answer", async () => {
      expect(await read([reset, object(kind, "SELECT 1;")])).toMatchObject({
        outcome: { bytes: Buffer.from("SELECT 1;") },
        requests: 2,
      });
      expect(await read([reset])).toMatchObject({
        outcome: { code: "SOURCE_UNAVAILABLE", cause: { code: "ECONNRESET" } },
        requests: 3,
      });
    });

    test("refuses what no other try can cure at once", async () => {
      expect(await read([dialect.error(501, "NotImplemented")])).toMatchObject({
        outcome: { code: "SOURCE_REFUSED" },
        requests: 1,
      });
      expect(await read([dialect.error(400, "InvalidRequest")])).toMatchObject({
        outcome: { code: "SOURCE_REFUSED" },
        requests: 1,
      });
    });

    test("refuses an object without a version", async () => {
      expect(await read([send(200, "SELECT 1;")])).toMatchObject({
        outcome: { code: "SOURCE_REFUSED" },
        requests: 1,
      });
    });

    test("stops a body that never ends at the ceiling, and hangs up", async () => {
      const endless = await startFaultyStore(kind, [
        (_request, response) => {
          response.writeHead(200, dialect.head(body));
          const more = () => {
            while (!response.destroyed && response.write(body));
          };
          response.on("drain", more);
          more();
        },
      ]);
      await expect(endless.source.read("a.sql", { maxBytes }, signal)).rejects.toMatchObject({
        code: "TOO_LARGE",
      });
      await endless.hungUp();
      expect(endless.requests).toHaveLength(1);
    });

    test("does not read a body that is announced to be too large", async () => {
      const announced = await startFaultyStore(kind, [
        (_request, response) => {
          response.writeHead(200, { ...dialect.head(body), "content-length": 2 ** 30 });
          response.flushHeaders();
        },
      ]);
      await expect(announced.source.read("a.sql", { maxBytes }, signal)).rejects.toMatchObject({
        code: "TOO_LARGE",
      });
      await announced.hungUp();
    });

    test("stops in the middle of a body when it is told to, and hangs up", async () => {
      const controller = new AbortController();
      const reason = new Error("no longer wanted");
      const store = await startFaultyStore(kind, [
        halfOf(kind, body, "content-length", () => controller.abort(reason)),
      ]);
      await expect(store.source.read("a.sql", { maxBytes }, controller.signal)).rejects.toBe(reason);
      await store.hungUp();
      expect(store.requests).toHaveLength(1);
    });

    test("stops between two tries when it is told to", async () => {
      const controller = new AbortController();
      const reason = new Error("no longer wanted");
      const hour = { "retry-after": "3600" };
      const busy = send(503, "", "text/plain", hour);
      const store = await startFaultyStore(kind, [busy], { ...hasty, idleMs: 3_600_000 });
      const read = store.source.read("a.sql", { maxBytes }, controller.signal);
      const outcome = read.catch((error: unknown) => error);
      // Its connection is idle again once the answer was read: what follows is the wait.
      await expect.poll(() => store.requests.length).toBe(1);
      await store.hungUp();
      controller.abort(reason);
      expect(await outcome).toBe(reason);
      expect(store.requests).toHaveLength(1);
    });

    test("waits as long as the store asks, unless that is too long", async () => {
      const soon = await startFaultyStore(kind, [
        send(503, "", "text/plain", { "retry-after": "0" }),
        object(kind, "now"),
      ]);
      expect(await soon.source.read("a.sql", { maxBytes }, signal)).toMatchObject({
        bytes: Buffer.from("now"),
      });
      const later = await startFaultyStore(kind, [send(503, "", "text/plain", { "retry-after": "120" })]);
      await expect(later.source.read("a.sql", { maxBytes }, signal)).rejects.toMatchObject({
        code: "SOURCE_UNAVAILABLE",
        fields: { attempts: 1, retryAfterMs: 120_000 },
      });
      expect(later.requests).toHaveLength(1);
    });

    test("fails when nobody listens", async () => {
      // A port that no server is ever given by chance.
      const source = await openFaulty(kind, "http://127.0.0.1:1");
      await expect(source.read("a.sql", { maxBytes }, signal)).rejects.toMatchObject({
        code: "SOURCE_UNAVAILABLE",
        message: containing("ECONNREFUSED"),
        fields: { attempts: 3 },
      });
    });

    test("answers unchanged on 304, by one request that names the version", async () => {
      const store = await startFaultyStore(kind, [send(304)]);
      expect(await store.source.readIfChanged("head.json", dialect.version, { maxBytes }, signal)).toBe(
        "unchanged",
      );
      expect(store.requests).toHaveLength(1);
      const asked = new URLSearchParams(store.requests[0]?.line.split("?")[1]).get("ifGenerationNotMatch");
      expect(store.requests[0]?.headers["if-none-match"] ?? asked).toBe(dialect.version);
    });
  });

  describe("listing", () => {
    const list = (answers: readonly Answer[]) =>
      startFaultyStore(kind, answers).then(async ({ source, requests }) => ({
        outcome: await source.list("", signal).catch((error: unknown) => error),
        requests: requests.length,
      }));

    test("follows the cursor", async () => {
      const { outcome, requests } = await list([
        dialect.page(["a", "c"], "2"),
        dialect.page([], "3"),
        dialect.page(["b"], undefined),
      ]);
      expect(outcome).toMatchObject([{ key: "a" }, { key: "b" }, { key: "c" }]);
      expect(requests).toBe(3);
    });

    test("fails as a whole when a later page does", async () => {
      const first = dialect.page(["a"], "2");
      expect(await list([first, dialect.error(500, "InternalError")])).toMatchObject({
        outcome: { code: "SOURCE_UNAVAILABLE" },
        requests: 4,
      });
      expect(await list([first, dialect.error(403, "AccessDenied")])).toMatchObject({
        outcome: { code: "SOURCE_DENIED" },
        requests: 2,
      });
      const { outcome } = await list([
        first,
        dialect.error(500, "InternalError"),
        dialect.page(["b"], undefined),
      ]);
      expect(outcome).toMatchObject([{ key: "a" }, { key: "b" }]);
    });

    test("fails when a cursor comes twice", async () => {
      const answers = [dialect.page(["a"], "2"), dialect.page(["b"], "3"), dialect.page(["c"], "2")];
      expect(await list(answers)).toMatchObject({
        outcome: { code: "SOURCE_UNAVAILABLE", message: containing("the same cursor twice") },
        requests: 3,
      });
    });

    test("fails when a page is no listing", async () => {
      expect(await list([send(200, "<html>please sign in</html", "text/html")])).toMatchObject({
        outcome: { code: "SOURCE_UNAVAILABLE" },
        requests: 3,
      });
    });
  });

  describe("writing", () => {
    const bytes = Buffer.from("new head");
    const taken = dialect.error(412, "PreconditionFailed");

    test("knows its own work when the answer was lost", async () => {
      const store = await startFaultyStore(kind, [reset, taken, object(kind, "new head")]);
      const written = await store.source.write("head.json", bytes, { version: dialect.version }, signal);
      const read = await store.source.read("head.json", { maxBytes }, signal);
      expect(written).toEqual({ version: read?.version });
    });

    test("knows that what is in the way is another's", async () => {
      for (const other of ["old head", "a much longer head by somebody else"]) {
        const store = await startFaultyStore(kind, [
          dialect.error(503, "SlowDown"),
          taken,
          object(kind, other),
        ]);
        expect(await store.source.write("head.json", bytes, { absent: true }, signal)).toBe("conflict");
        expect(store.requests).toHaveLength(3);
      }
    });

    test("asks once when the condition does not hold", async () => {
      const store = await startFaultyStore(kind, [taken]);
      expect(await store.source.write("head.json", bytes, { absent: true }, signal)).toBe("conflict");
      expect(store.requests).toHaveLength(1);
    });

    test("writes again after a server's error", async () => {
      const store = await startFaultyStore(kind, [
        dialect.error(500, "InternalError"),
        send(200, dialect.writtenBody, type(kind), dialect.written),
      ]);
      expect(await store.source.write("head.json", bytes, { absent: true }, signal)).toEqual({
        version: kind === "s3" ? '"new"' : "18",
      });
      expect(store.requests).toHaveLength(2);
    });
  });
});

describe("a faulty store that only S3 has", () => {
  const dialect = dialects.s3;

  test("says in which region the bucket is, and asks once", async () => {
    const moved = send(301, "<Error><Code>PermanentRedirect</Code></Error>", "application/xml", {
      "x-amz-bucket-region": "eu-west-1",
    });
    const { source, requests } = await startFaultyStore("s3", [moved]);
    await expect(source.list("", signal)).rejects.toMatchObject({
      code: "CONFIG",
      message: containing("(eu-west-1)"),
    });
    expect(requests).toHaveLength(1);
    await expect(source.read("a.sql", { maxBytes }, signal)).rejects.toMatchObject({
      code: "CONFIG",
      message: containing("(eu-west-1)"),
    });
  });

  test("understands a refusal by something in between that sets cookies", async () => {
    const { source, requests } = await startFaultyStore("s3", [
      (_request, response) => {
        response.writeHead(403, { "set-cookie": ["a=1", "b=2"], "content-type": "text/html" });
        response.end("<html>no</html>");
      },
    ]);
    await expect(source.read("a.sql", { maxBytes }, signal)).rejects.toMatchObject({
      code: "SOURCE_DENIED",
      message: containing("(403)"),
    });
    expect(requests).toHaveLength(1);
  });

  test.each([
    ["SignatureDoesNotMatch", "secret key"],
    ["InvalidAccessKeyId", "access key"],
    ["ExpiredToken", "expired"],
    ["InvalidToken", "session token"],
    ["AccessDenied", "grant s3:"],
  ])("where it is refused by %s, the next step is about that", async (code, words) => {
    const answer = `<Error><Code>${code}</Code></Error>`;
    const { source } = await startFaultyStore("s3", [send(403, answer, "application/xml")]);
    for (const asked of [source.read("a.sql", { maxBytes }, signal), source.list("", signal)])
      await expect(asked).rejects.toMatchObject({ code: "SOURCE_DENIED", hint: containing(words) });
  });

  test("keeps nothing of what the server repeats from the signed request", async () => {
    const answer =
      "<Error><Code>SignatureDoesNotMatch</Code><CanonicalRequest>x-amz-security-token:hunter2</CanonicalRequest></Error>";
    const { source } = await startFaultyStore("s3", [send(403, answer, "application/xml")]);
    const error: unknown = await source.list("", signal).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "SOURCE_DENIED", cause: { name: "SignatureDoesNotMatch" } });
    expect(inspect(error, { depth: 20, showHidden: true })).not.toContain("hunter2");
    const read: unknown = await source.read("a.sql", { maxBytes }, signal).catch((thrown: unknown) => thrown);
    expect(read).toMatchObject({ code: "SOURCE_DENIED", cause: { name: "SignatureDoesNotMatch" } });
    expect(inspect(read, { depth: 20, showHidden: true })).not.toContain("hunter2");
  });

  test("fails when a page says that there is more, but not where", async () => {
    const lost = send(
      200,
      "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
      "application/xml",
    );
    const { source, requests } = await startFaultyStore("s3", [lost]);
    await expect(source.list("", signal)).rejects.toMatchObject({ code: "SOURCE_UNAVAILABLE" });
    expect(requests).toHaveLength(1);
  });

  test("writes again when two conditional writes met", async () => {
    const { source, requests } = await startFaultyStore("s3", [
      dialect.error(409, "ConditionalRequestConflict"),
      send(200, "", "text/plain", { etag: '"new"' }),
    ]);
    expect(await source.write("a", Buffer.from("a"), { absent: true }, signal)).toEqual({ version: '"new"' });
    expect(requests).toHaveLength(2);
  });

  test("reads by ETag where reading by version id is denied", async () => {
    const { source, requests } = await startFaultyStore("s3", [
      dialect.error(403, "AccessDenied"),
      object("s3", "old"),
      dialect.error(403, "AccessDenied"),
      dialect.error(412, "PreconditionFailed"),
    ]);
    const options = { maxBytes, version: '"old"@id-1' };
    expect(await source.read("a.sql", options, signal)).toMatchObject({ bytes: Buffer.from("old") });
    await expect(source.read("a.sql", options, signal)).rejects.toMatchObject({ code: "SOURCE_CHANGED" });
    expect(
      requests.map(({ line, headers }) => [line.includes("versionId=id-1"), headers["if-match"]]),
    ).toEqual([
      [true, undefined],
      [false, '"old"'],
      [true, undefined],
      [false, '"old"'],
    ]);
  });

  test("sends a SHA-256 with a write, and no trailer", async () => {
    const { source, requests } = await startFaultyStore("s3", [
      send(200, "", "text/plain", { etag: '"new"' }),
    ]);
    await source.write("a", Buffer.from("abc"), { absent: true }, signal);
    expect(requests[0]?.headers).toMatchObject({
      "if-none-match": "*",
      "content-length": "3",
      "x-amz-checksum-sha256": "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
    });
    expect(requests[0]?.headers).not.toHaveProperty("x-amz-trailer");
    expect(requests[0]?.headers).not.toHaveProperty("expect");
  });
});

describe("a faulty store that only GCS has", () => {
  test("asks the bucket when a 404 does not say what is missing", async () => {
    const bare = await startFaultyStore("gcs", [
      send(404, "Not Found", "text/plain"),
      send(200, "{}", "application/json"),
    ]);
    expect(await bare.source.read("a.sql", { maxBytes }, signal)).toBeUndefined();
    expect(bare.requests).toHaveLength(2);
  });

  test("takes a refusal for its rate as one to ask again after", async () => {
    const { source, requests } = await startFaultyStore("gcs", [
      dialects.gcs.error(403, "rateLimitExceeded"),
      object("gcs", "now"),
    ]);
    expect(await source.read("a.sql", { maxBytes }, signal)).toMatchObject({ bytes: Buffer.from("now") });
    expect(requests).toHaveLength(2);
  });

  test("asks for the bytes as they are stored", async () => {
    const { source, requests } = await startFaultyStore("gcs", [object("gcs", "now")]);
    await source.read("a.sql", { maxBytes }, signal);
    expect(requests[0]?.headers).toMatchObject({ "accept-encoding": "gzip" });
    expect(requests[0]?.headers).not.toHaveProperty("authorization");
  });
});

function containing(text: string): unknown {
  return expect.stringContaining(text);
}

function words(kind: "s3" | "gcs", text: string): string {
  return kind === "s3" ? `<Error><Code>${text}</Code></Error>` : text;
}

function type(kind: "s3" | "gcs"): string {
  return kind === "s3" ? "application/xml" : "application/json";
}
