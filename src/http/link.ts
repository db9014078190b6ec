/** Absolute addresses of this server's resources. */
export interface Links {
  run(id: string): string;
  runs(query: Readonly<Record<string, string>>): string;
  target(name: string): string;
  history(name: string, query: Readonly<Record<string, string>>): string;
}

/**
 * Links below the configured public address. Never from the request: behind a gateway with a stage prefix its path is
 * wrong, and its `Host` and `X-Forwarded-*` are whatever the caller wrote.
 */
export function linksBelow(publicUrl: string): Links {
  const base = publicUrl.replace(/\/+$/, "");
  const at = (path: string, query: Readonly<Record<string, string>> = {}): string => {
    const search = new URLSearchParams(query).toString();
    return `${base}${path}${search === "" ? "" : `?${search}`}`;
  };
  return {
    run: (id) => at(`/v1/runs/${encodeURIComponent(id)}`),
    runs: (query) => at("/v1/runs", query),
    target: (name) => at(`/v1/targets/${encodeURIComponent(name)}`),
    history: (name, query) => at(`/v1/targets/${encodeURIComponent(name)}/history`, query),
  };
}
