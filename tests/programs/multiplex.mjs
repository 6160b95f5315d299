// Fetches BASE/job/1 to BASE/job/COUNT over one HTTP/2 connection without TLS,
// all at once. Writes each body to a file named by its number and prints a line
// per answer: status and number.

import { writeFile } from "node:fs/promises";
import { connect } from "node:http2";

const [base, count] = process.argv.slice(2);
const session = connect(base);

async function fetchOne(number) {
  const stream = session.request({ ":path": `/job/${number}` });
  let status;
  stream.on("response", (head) => (status = head[":status"]));
  const pieces = await stream.toArray();
  await writeFile(String(number), Buffer.concat(pieces));
  console.log(`${status} ${number}`);
}

await Promise.all(Array.from({ length: Number(count) }, (_, index) => fetchOne(index + 1)));
session.close();
