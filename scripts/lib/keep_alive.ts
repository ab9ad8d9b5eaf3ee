/**
 * How long our HTTP servers keep a connection open on which nothing comes, ms: as front ends commonly do. Node's own five seconds end one just as a
 * busy client takes it for its next request, who then says that the service does not answer.
 */
export const KEEP_ALIVE_MS = 75_000;
