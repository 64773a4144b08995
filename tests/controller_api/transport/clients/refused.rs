// Sends a large body by the standard library alone, reads up to the end of the connection, and prints the answer's status
// and body.
use std::io::{Read, Write};
use std::net::TcpStream;

fn main() -> std::io::Result<()> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let size: usize = std::env::var("METIS_BODY").unwrap().parse().unwrap();
    let address = given[0].trim_start_matches("http://");
    let mut connection = TcpStream::connect(address)?;
    let token = match given[4].as_str() {
        "" => String::new(),
        token => format!("Authorization: Bearer {token}\r\n"),
    };
    let head = format!(
        "{} {} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {}\r\nContent-Length: {size}\r\nConnection: close\r\n{token}\r\n",
        given[1], given[2], given[3]
    );
    connection.write_all(head.as_bytes())?;
    connection.write_all(&vec![0u8; size])?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
    println!("{} {body}", head.split_whitespace().nth(1).expect("a status"));
    Ok(())
}
