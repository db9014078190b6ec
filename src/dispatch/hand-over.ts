/**
 * Starts another execution of this program that goes on with a target's open runs, where this one has no time for them:
 * serverless hosts stop a process when it has answered, or when its time is over. What there is to do stands in the
 * target's database; the execution is only told where to look.
 */
export interface HandOver {
  /**
   * Resolves when the host has taken the request, not when the work is done.
   *
   * @throws RunnerError `HAND_OVER_FAILED` - it has not; the runs stay open for whoever looks next
   */
  start(target: string): Promise<void>;
}
