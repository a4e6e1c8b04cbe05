// Node's smtp-server, which reads every message and throws it away.
// Prints where it listens as one line of JSON. Run with the folder that holds node_modules.
import { createRequire } from "node:module";

const require = createRequire(`${process.argv[2]}/`);
const { SMTPServer } = require("smtp-server");

const server = new SMTPServer({
  authOptional: true,
  onData(stream, session, done) {
    stream.on("end", () => done());
    stream.resume();
  },
});
server.listen(0, "127.0.0.1", () => {
  console.log(JSON.stringify({ smtp: ["127.0.0.1", server.server.address().port] }));
});
