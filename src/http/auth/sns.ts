import { verify, X509Certificate } from "node:crypto";
import * as v from "valibot";
import { parseStrictJson } from "../json.ts";
import { readCapped } from "../read-capped.ts";
import { parseTopicArn } from "./hook.ts";

/** How the certificate is fetched; tests give their own. */
export type FetchCertificate = (url: string, init: RequestInit) => Promise<Response>;

/** A message of SNS whose signature was checked. */
export type SnsMessage =
  | {
      readonly kind: "notification";
      readonly messageId: string;
      /** what was published */
      readonly message: string;
      /** what the signature covers, the same for every repetition */
      readonly signed: string;
    }
  /** asks whether this address wants the topic's messages, or says that it gets none any more */
  | { readonly kind: "subscription" | "unsubscription"; readonly messageId: string; readonly token: string };

/** Checks messages of SNS. */
export interface SnsVerifier {
  /**
   * @param topicArn - the only topic that is taken
   * @throws Error saying why not, for the log
   */
  verify(body: Buffer, topicArn: string): Promise<SnsMessage>;
}

const certificateBytes = 16 * 1024;
const certificateMs = 5_000;
/** milliseconds between a message's time and ours */
const maxAgeMs = 15 * 60_000;
/** for how long a certificate is kept that has proved a message, and for how long one that has not */
const keepMs = 24 * 3600_000;
const cooldownMs = 60_000;
/** certificates kept; SNS signs with one at a time in a region */
const maxKept = 16;
/** fetches for certificates that are not known yet, within one cool-down: a forged message can ask for any number of them */
const maxFetches = 8;

const maxDepth = 4;

const time = v.pipe(v.string(), v.regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z$/));
const uuid = v.pipe(v.string(), v.regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/));
const signature = v.pipe(v.string(), v.regex(/^[A-Za-z0-9+/]{300,1400}={0,2}$/));
const common = {
  MessageId: uuid,
  TopicArn: v.string(),
  Message: v.string(),
  Timestamp: time,
  SignatureVersion: v.literal("2"),
  Signature: signature,
  SigningCertURL: v.string(),
};
/** The fields that are signed, less what we have no use for. What is not signed, such as attributes, is not read. */
const messageSchema = v.variant("Type", [
  v.object({
    ...common,
    Type: v.literal("Notification"),
    // no line breaks: with one, parts of the message could be passed off as other fields
    Subject: v.nullish(v.pipe(v.string(), v.regex(/^[^\p{Cc}]{0,200}$/u))),
  }),
  v.object({
    ...common,
    Type: v.picklist(["SubscriptionConfirmation", "UnsubscribeConfirmation"]),
    SubscribeURL: v.pipe(v.string(), v.regex(/^[\x21-\x7e]{1,2000}$/)),
    Token: v.pipe(v.string(), v.regex(/^[0-9A-Za-z]{1,1000}$/)),
  }),
]);
type Message = v.InferOutput<typeof messageSchema>;

/** Holds certificates between messages. */
export function createSnsVerifier(options: { readonly fetch: FetchCertificate; now(): Date }): SnsVerifier {
  const { now } = options;
  const kept = new Map<string, Kept>();
  let fetches: readonly number[] = [];

  /** One that has proved a message is neither counted nor pushed out by those that forged messages ask for. */
  function certificateAt(url: string): Kept {
    const at = now().getTime();
    const known = kept.get(url);
    if (known !== undefined && known.until > at) return known;
    if (known?.isProven !== true) {
      fetches = fetches.filter((began) => began > at - cooldownMs);
      if (fetches.length >= maxFetches) throw new Error("too many unknown certificates at once");
      fetches = [...fetches, at];
    }
    const certificate = fetchCertificate(url, options.fetch);
    const isProven = known?.isProven === true;
    const entry: Kept = { certificate, since: at, until: at + cooldownMs, isProven };
    kept.delete(url);
    const unproven = [...kept].find(([, { isProven }]) => !isProven) ?? [...kept][0];
    if (kept.size >= maxKept && unproven !== undefined) kept.delete(unproven[0]);
    kept.set(url, entry);
    return entry;
  }

  return {
    async verify(body, topicArn) {
      const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(body);
      const message = parseMessage(text);
      if (message.TopicArn !== topicArn) throw new Error("of another topic");
      const ageMs = Math.abs(now().getTime() - Date.parse(message.Timestamp));
      if (!(ageMs <= maxAgeMs)) throw new Error("older than 15 minutes, or from the future");
      const url = message.SigningCertURL;
      if (!isCertificateUrl(url, topicArn))
        throw new Error("the certificate is not at SNS of the topic's region");
      // No name may be there twice. That costs many times what JSON.parse does, so not everybody can have it done.
      parseStrictJson(text, maxDepth);
      const entry = certificateAt(url);
      const certificate = await entry.certificate;
      assertValid(certificate, now());
      const signed = signedText(message);
      if (
        !verify(
          "sha256",
          Buffer.from(signed),
          certificate.publicKey,
          Buffer.from(message.Signature, "base64"),
        )
      )
        throw new Error("the signature is not of this message");
      entry.isProven = true;
      entry.until = Math.max(entry.until, entry.since + keepMs);
      return readMessage(message, signed);
    },
  };
}

/** A certificate, or that it could not be had. */
interface Kept {
  readonly certificate: Promise<X509Certificate>;
  readonly since: number;
  /** when it is asked for again */
  until: number;
  /** a message's signature was right by it */
  isProven: boolean;
}

/** Whether a certificate's address is one that SNS of the topic's own region has. */
export function isCertificateUrl(url: string, topicArn: string): boolean {
  const topic = parseTopicArn(topicArn);
  if (topic === undefined) return false;
  const host = `sns.${topic.region}.amazonaws.com${topic.partition === "aws-cn" ? ".cn" : ""}`;
  const start = `https://${host}/`;
  return (
    url.startsWith(start) && /^SimpleNotificationService-[0-9a-f]{32}\.pem$/.test(url.slice(start.length))
  );
}

function parseMessage(text: string): Message {
  const parsed = v.safeParse(messageSchema, parseJson(text));
  if (parsed.success) return parsed.output;
  const fields = parsed.issues.map((issue) => v.getDotPath(issue) ?? "the whole").join(", ");
  throw new Error(`not a message of SNS with SignatureVersion 2: ${fields}`);
}

/** The parser's own message quotes the text. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error("not JSON");
  }
}

/** Names and values of the signed fields in the order of their names, each on a line of its own. */
function signedText(message: Message): string {
  const { MessageId, TopicArn, Message: text, Timestamp, Type } = message;
  const fields: readonly (readonly [string, string | null | undefined])[] =
    message.Type === "Notification"
      ? [
          ["Message", text],
          ["MessageId", MessageId],
          ["Subject", message.Subject],
          ["Timestamp", Timestamp],
          ["TopicArn", TopicArn],
          ["Type", Type],
        ]
      : [
          ["Message", text],
          ["MessageId", MessageId],
          ["SubscribeURL", message.SubscribeURL],
          ["Timestamp", Timestamp],
          ["Token", message.Token],
          ["TopicArn", TopicArn],
          ["Type", Type],
        ];
  return fields
    .map(([name, value]) => (value === null || value === undefined ? "" : `${name}\n${value}\n`))
    .join("");
}

function readMessage(message: Message, signed: string): SnsMessage {
  const { MessageId: messageId } = message;
  switch (message.Type) {
    case "Notification":
      return { kind: "notification", messageId, message: message.Message, signed };
    case "SubscriptionConfirmation":
      return { kind: "subscription", messageId, token: message.Token };
    case "UnsubscribeConfirmation":
      return { kind: "unsubscription", messageId, token: message.Token };
  }
}

async function fetchCertificate(url: string, fetch: FetchCertificate): Promise<X509Certificate> {
  const response = await fetch(url, { redirect: "error", signal: AbortSignal.timeout(certificateMs) });
  if (response.status !== 200) {
    await response.body?.cancel();
    throw new Error(`the certificate's address answered ${response.status}`);
  }
  const bytes = await readCapped(response.body, certificateBytes);
  if (bytes === undefined) throw new Error(`the certificate is larger than ${certificateBytes} bytes`);
  return new X509Certificate(bytes);
}

function assertValid(certificate: X509Certificate, now: Date): void {
  if (!(certificate.validFromDate <= now && now <= certificate.validToDate))
    throw new Error("the certificate is not valid now");
  const { publicKey } = certificate;
  if (publicKey.asymmetricKeyType !== "rsa" || (publicKey.asymmetricKeyDetails?.modulusLength ?? 0) < 2048)
    throw new Error("the certificate's key is not RSA with 2048 bits or more");
}
