//! Topics: state that others keep up with, each at its own pace.
//!
//! ```
//! use strait::{Change, Keypair, Node, Priority, Topic};
//!
//! // A topic is its limits: keys at once, bytes of a key and of a value. Both sides use the same definition.
//! const HEIGHTS: Topic<String, u64> = Topic::latest("/app/heights/1", 64, 32, 8);
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Node::builder().identity(Keypair::generate_ed25519()).listen("127.0.0.1:0".parse()?).start().await?;
//! let heights = server.publisher(&HEIGHTS, Priority::Normal)?;
//! heights.publish("main".to_owned(), 3)?; // never waits, however many subscribers there are and however slow
//! heights.publish("main".to_owned(), 4)?;
//! heights.publish("main".to_owned(), 5)?;
//!
//! let client = Node::builder().start().await?;
//! client.connect(server.peer_id(), &server.listen_addrs()).await?;
//! let mut changes = client.subscribe(server.peer_id(), &HEIGHTS);
//! assert_eq!(changes.next().await?, Change::Begin);
//! assert_eq!(changes.next().await?, Change::Put("main".to_owned(), 5)); // not 3, 4, 5
//! assert_eq!(changes.next().await?, Change::Whole);
//! client.close().await;
//! server.close().await;
//! # Ok(())
//! # }
//! ```

mod codec;
mod definition;
mod live;
mod mirror;
mod publisher;
mod subscription;

pub use codec::Codec;
pub use definition::{Kind, Latest, Lines, Merged, Shown, Topic};
pub use mirror::{Known, Mirror};
pub use publisher::Publisher;
pub use subscription::{Change, Interest, Interruption, Line, SubscribeError, Subscription};
