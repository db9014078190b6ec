import { parseConfig } from "../../src/bin/config-file.ts";
import { parseListen } from "../../src/bin/config-schema.ts";
import { databaseNameOf, engineOf, withPassword } from "../../src/driver/url.ts";
import { parseDigest } from "../../src/migration/checksum.ts";
import { parseDuration } from "../../src/migration/duration.ts";
import { compareVersions, isVersion, versionKey } from "../../src/migration/version.ts";
import { redactText } from "../../src/report/redact.ts";
import { gcsRefusal } from "../../src/source/gcs-error.ts";
import { parseLocation } from "../../src/source/location.ts";
import type { Subject } from "./subject.ts";

const config = `listen: 127.0.0.1:8080
publicUrl: https://migrate.test
trust:
  main:
    keys: [alice.pub]
    threshold: 1
targets:
  orders-prod:
    source: s3://acme-migrations/orders
    database: postgres://migrator@db.test:5432/orders
    stream: orders
    environment: production
    trust: main
    limits: { wait: 10s, lockTimeout: 2s }
    services: {}
`;

const secret = "pa55-that-nobody-may-see";

/** What reads an operator's own words, and the answers of stores. */
export const configSubjects: readonly Subject[] = [
  {
    name: "config",
    // the library makes an error with its stack of each of thousands of problems; it is for a file that a person wrote
    maxBytes: 16_384,
    maxMs: 1_000,
    corpus: [Buffer.from(config)],
    words: [
      "targets:\n",
      "trust: ",
      "&a ",
      "*a",
      "<<: *a",
      "!!binary ",
      "? ",
      "- ",
      "unsigned: true\n",
      "verify: false\n",
      "~",
    ],
    read(input) {
      const parsed = parseConfig(input.toString());
      if (parsed.kind === "problems")
        return parsed.problems.length > 0 ? undefined : "no problem where there is one";
      return Object.keys(parsed.config.targets).length > 0 ? undefined : "a configuration without a target";
    },
  },
  {
    name: "location",
    corpus: ["s3://bucket/prefix", "gs://bucket/a/b/", "file:///var/folder", "./folder"].map((text) =>
      Buffer.from(text),
    ),
    words: ["s3://", "gcs://", "file://", "@", "?x=1", "#", "..", "%2f", "C:\\"],
    read(input) {
      const location = parseLocation(input.toString());
      if (location.kind === "folder")
        return location.folder.startsWith("/") ? undefined : "a folder that is not absolute";
      const { bucket, prefix } = location;
      if (!/^[A-Za-z0-9._-]+$/.test(bucket)) return "no name of a bucket";
      return prefix === "" || prefix.endsWith("/") ? undefined : "a prefix that does not end";
    },
  },
  {
    name: "database-url",
    corpus: [
      `postgres://migrator:${secret}@db.test:5432/orders?sslmode=verify-full`,
      `mongodb://migrator:${secret}@db.test:27017,db2.test/orders?replicaSet=rs0`,
      `mongodb+srv://migrator:${secret}@db.test/orders`,
    ].map((text) => Buffer.from(text)),
    words: ["@", ":", "/", "?", "&", "%", "sslmode=", "host=", "[::1]", "tls=false"],
    async read(input) {
      const url = input.toString();
      engineOf(url);
      withPassword(url, secret);
      try {
        await databaseNameOf(url);
      } catch (error) {
        if (error instanceof Error && error.message.includes(secret)) return "its password in a message";
        throw error;
      }
      return undefined;
    },
  },
  {
    name: "redact",
    corpus: [`cannot reach postgres://u:${secret}@h/d`, `https://u:${secret}@h/?password=${secret}`].map(
      (text) => Buffer.from(text),
    ),
    read(input) {
      redactText(input.toString());
      return undefined;
    },
  },
  {
    name: "words",
    corpus: ["10m", "sha256:" + "0a".repeat(32), "1.2.3", "000042", "127.0.0.1:8080", "[::1]:80", ":80"].map(
      (text) => Buffer.from(text),
    ),
    read(input) {
      const text = input.toString();
      const ms = parseDuration(text);
      if (ms !== undefined && (!Number.isSafeInteger(ms) || ms < 0)) return "no duration";
      const hex = parseDigest(text);
      if (hex !== undefined && !/^[0-9a-f]{64}$/.test(hex)) return "no digest";
      const address = parseListen(text);
      if (address !== undefined && !(address.port >= 0 && address.port <= 65_535)) return "no port";
      if (!isVersion(text)) return undefined;
      return compareVersions(text, versionKey(text)) === 0 ? undefined : "a version that is not its own key";
    },
  },
  {
    name: "store-answer",
    corpus: ['{"error":{"code":403,"errors":[{"reason":"forbidden"}]}}', "Not Found"].map((text) =>
      Buffer.from(text),
    ),
    read(input) {
      const error = gcsRefusal(403, "120", input.toString(), "gs://b", { act: "reading" });
      return error.code === "INTERNAL" ? "no name for a refusal" : undefined;
    },
  },
];
