/** Linux only: elsewhere a server refuses the first of them, or complains of the others in its log. */
const onLinux = [
  // Looks, while it works on a statement, whether the connection was closed: what is left of a killed process.
  ["client_connection_check_interval", "2s"],
  // Asks the other machine whether it is still there: one that vanished has closed nothing. It takes 5 + 3 * 3 s,
  // about as long as a lease lives, so a network that is silent for longer has ended the run anyway.
  ["tcp_keepalives_idle", "5s"],
  ["tcp_keepalives_interval", "3s"],
  ["tcp_keepalives_count", "3"],
  ["tcp_user_timeout", "14s"],
] as const;

/**
 * Settings, as name and value, by which the server ends the statement of a runner that is gone within seconds, and not
 * when it is done with it. Without them an index build goes on for hours for nobody.
 */
export function deathSettings(server: {
  readonly isLinux: boolean;
}): readonly (readonly [name: string, value: string])[] {
  return server.isLinux ? onLinux : [];
}
