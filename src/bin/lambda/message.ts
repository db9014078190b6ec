import * as v from "valibot";

/** What a function of ours is called with when it is neither a gateway nor a storage service that calls. */
export type OwnMessage =
  /** go on with the open runs of a target */
  | { readonly kind: "work"; readonly target: string }
  /** bring one target to what its bucket offers */
  | { readonly kind: "wake"; readonly target: string }
  /** look at every target */
  | { readonly kind: "sweep" };

const one = v.strictObject({ target: v.string() });
const schema = v.strictObject({
  lockkeeper: v.union([
    v.strictObject({ work: one }),
    v.strictObject({ wake: one }),
    v.strictObject({ sweep: v.strictObject({}) }),
  ]),
});

/** EventBridge's rules and its Scheduler, where nobody wrote what they are to send. */
const scheduled = v.object({
  source: v.picklist(["aws.events", "aws.scheduler"]),
  "detail-type": v.literal("Scheduled Event"),
});

/** `{"lockkeeper":{"work":{"target":"orders"}}}`, and `wake` and `sweep` alike; a schedule's own event is a sweep. */
export function ownMessageOf(event: unknown): OwnMessage | undefined {
  const own = v.safeParse(schema, event);
  if (!own.success) return v.is(scheduled, event) ? { kind: "sweep" } : undefined;
  const { lockkeeper } = own.output;
  if ("work" in lockkeeper) return { kind: "work", target: lockkeeper.work.target };
  if ("wake" in lockkeeper) return { kind: "wake", target: lockkeeper.wake.target };
  return { kind: "sweep" };
}
