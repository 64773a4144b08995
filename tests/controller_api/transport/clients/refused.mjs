// Sends a large body by fetch (undici) and prints the answer's status and body.
const [url, method, path, type, token] = process.argv.slice(2);
const headers = { "content-type": type, ...(token ? { authorization: `Bearer ${token}` } : {}) };
const body = new Uint8Array(Number(process.env.METIS_BODY));
const answer = await fetch(url + path, { method, headers, body });
console.log(answer.status, await answer.text());
