import { createHash } from "node:crypto";
import { RunnerError } from "../../error.ts";
import type { Hook } from "./hook.ts";
import { hasSignature, verifySigned, type Delivery } from "./hook-signature.ts";
import type { SnsVerifier } from "./sns.ts";

/** What an authentic delivery is. */
export type Authentic =
  | {
      readonly kind: "delivery";
      /** the same for each repetition of it */
      readonly id: string;
      /** `sha256:<hex>` of what was signed; another one under the same id is a forgery */
      readonly digest: string;
      /** what the sender wrote */
      readonly content: Buffer;
    }
  /** the sender only tries the address */
  | { readonly kind: "ping" }
  /** SNS wants to be told that its messages are welcome, or says that they have ended */
  | {
      readonly kind: "subscription" | "unsubscription";
      readonly topicArn: string;
      readonly token: string;
    };

/** Checks webhooks. */
export interface HookVerifier {
  /**
   * @param name - of a hook in the policy, as the sender's URL says
   * @param readBody - called only where the headers may belong to an authentic delivery; undefined when it is too large
   * @throws RunnerError `UNAUTHENTICATED` — always the same one, also for a hook that is not there; the reason is its cause; and what `readBody` throws
   */
  verify(
    name: string,
    header: Delivery["header"],
    readBody: () => Promise<Buffer | undefined>,
  ): Promise<Authentic>;
}

/** A hook with the keys that its senders may sign with; SNS has none. */
export interface HookKeys {
  readonly hook: Hook;
  readonly keys: readonly Buffer[];
}

/** The verifier of a policy's hooks. */
export function createHookVerifier(options: {
  readonly hooks: readonly HookKeys[];
  readonly sns: SnsVerifier;
  now(): Date;
}): HookVerifier {
  const byName = new Map(options.hooks.map((entry) => [entry.hook.name, entry]));

  async function check(
    name: string,
    header: Delivery["header"],
    readBody: () => Promise<Buffer | undefined>,
  ): Promise<Authentic> {
    const entry = byName.get(name);
    if (entry === undefined) throw new Error("no hook of the policy is called so");
    const { hook, keys } = entry;
    if (header("content-encoding") !== undefined) throw new Error("a compressed body is not taken");
    if (hook.kind !== "sns" && !hasSignature(hook, header)) throw new Error("there is no signature");
    const body = await readBody();
    if (body === undefined) throw new Error("the body is too large");
    if (hook.kind === "sns") return checkSns(body, hook.topicArn);
    const { id, content } = verifySigned(hook, keys, { header, body }, options.now());
    const isPing = hook.kind === "hmac" && hook.pingHeader !== null && header(hook.pingHeader) === "ping";
    return isPing ? { kind: "ping" } : { kind: "delivery", id, digest: digestOf(content), content };
  }

  async function checkSns(body: Buffer, topicArn: string): Promise<Authentic> {
    const message = await options.sns.verify(body, topicArn);
    if (message.kind !== "notification") return { kind: message.kind, topicArn, token: message.token };
    return {
      kind: "delivery",
      id: message.messageId,
      digest: digestOf(message.signed),
      content: Buffer.from(message.message),
    };
  }

  return {
    async verify(name, header, readBody) {
      try {
        return await check(name, header, readBody);
      } catch (cause) {
        // what the reader of the body says for itself says nothing of the sender
        if (cause instanceof RunnerError) throw cause;
        throw new RunnerError("UNAUTHENTICATED", "the delivery was not accepted", {
          hint: "sign exactly the bytes that are sent, with the secret of this hook; the server's log has the reason",
          cause,
        });
      }
    },
  };
}

function digestOf(content: Buffer | string): string {
  return `sha256:${createHash("sha256").update(content).digest("hex")}`;
}
