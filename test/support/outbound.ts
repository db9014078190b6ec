import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { onTestFinished } from "vitest";

/** Hosts that this process has sent HTTP requests to, or tried to, in order. */
export interface Outbound {
  readonly hosts: readonly string[];
}

/** Records every HTTP request that leaves this process until the test ends, by whichever client: nothing is replaced. */
export function recordOutbound(): Outbound {
  const hosts: string[] = [];
  const onFetch = (message: unknown): void => void hosts.push(originOf(message));
  const onRequest = (message: unknown): void => void hosts.push(hostOf(message));
  subscribe("undici:request:create", onFetch);
  subscribe("http.client.request.start", onRequest);
  onTestFinished(() => {
    unsubscribe("undici:request:create", onFetch);
    unsubscribe("http.client.request.start", onRequest);
  });
  return { hosts };
}

function originOf(message: unknown): string {
  const { request } = message as { readonly request: { readonly origin: string | URL } };
  return new URL(request.origin).host;
}

function hostOf(message: unknown): string {
  return (message as { readonly request: { readonly host: string } }).request.host;
}
