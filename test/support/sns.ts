import { execFileSync } from "node:child_process";
import { randomUUID, sign } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The topic of all tests, unless a test says otherwise. */
export const testTopic = "arn:aws:sns:eu-central-1:123456789012:releases";
/** Where SNS of that region has its certificate. */
export const testCertificateUrl =
  "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem";

/** What a message of SNS holds. */
export type SnsFields = Readonly<Record<string, string | undefined>>;

/** SNS as far as its signature goes: a key and a certificate of its own, made for the file. */
export interface TestSns {
  readonly certificate: string;
  /** A signed notification as SNS posts it; `change` comes before the signature. */
  message(change?: SnsFields): Record<string, string>;
  /** What SNS posts to a new subscriber. */
  confirmation(change?: SnsFields): Record<string, string>;
}

const signedNames = [
  "Message",
  "MessageId",
  "SubscribeURL",
  "Subject",
  "Timestamp",
  "Token",
  "TopicArn",
  "Type",
];

/** Makes SNS's key and certificate by openssl. */
export function createSns(options: { readonly bits?: number; readonly days?: number } = {}): TestSns {
  const { bits = 2048, days = 30 } = options;
  const folder = mkdtempSync(join(tmpdir(), "lockkeeper-sns-"));
  const arguments_ = ["req", "-x509", "-newkey", `rsa:${bits}`, "-nodes", "-days", String(days)];
  const [key = "", certificate = ""] = inFolder(folder, () => {
    const files = ["-subj", "/CN=sns.amazonaws.com", "-keyout", "key.pem", "-out", "certificate.pem"];
    execFileSync("openssl", [...arguments_, ...files], { cwd: folder, stdio: "ignore" });
    return ["key.pem", "certificate.pem"].map((name) => readFileSync(join(folder, name), "utf8"));
  });
  const signed = (fields: SnsFields): Record<string, string> => {
    const given = Object.fromEntries(
      Object.entries(fields).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
    );
    const text = signedNames.flatMap((name) => (name in given ? [`${name}\n${given[name]}\n`] : [])).join("");
    const digest = given["SignatureVersion"] === "1" ? "sha1" : "sha256";
    return { ...given, Signature: sign(digest, Buffer.from(text), key).toString("base64") };
  };
  const common = (): SnsFields => ({
    MessageId: randomUUID(),
    TopicArn: testTopic,
    Timestamp: new Date().toISOString(),
    SignatureVersion: "2",
    SigningCertURL: testCertificateUrl,
  });
  return {
    certificate,
    message: (change = {}) =>
      signed({
        ...common(),
        Type: "Notification",
        Subject: "Amazon S3 Notification",
        Message: '{"Records":[{"s3":{"bucket":{"name":"evil"},"object":{"key":"head.json"}}}]}',
        ...change,
      }),
    confirmation: (change = {}) =>
      signed({
        ...common(),
        Type: "SubscriptionConfirmation",
        Message: "You have chosen to subscribe to the topic.",
        Token: "2336412f37fb687f5d51e6e2425dacbb",
        SubscribeURL: "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&Token=2336412f",
        ...change,
      }),
  };
}

function inFolder<T>(folder: string, act: () => T): T {
  try {
    return act();
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
