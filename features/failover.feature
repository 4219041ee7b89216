Feature: Calls are answered while nodes die and return
  From primary to primary, then to the backup, and home again; nobody restarts or reconnects.

  @testnet
  Scenario: To the next primary, to the backup, and home step by step
    Given a primary geth
    And a primary besu
    And a backup provider
    And the proxy runs
    And clients call without pause
    When geth goes down
    Then calls go to besu
    When besu goes down
    Then calls go to provider
    When besu is well again
    Then calls go to besu
    When geth is well again
    Then calls go to geth
    And every call was answered

  @testnet
  Scenario: The operator takes a node out, and lets it in again
    Given a primary geth
    And a backup provider
    And the proxy runs
    And clients call without pause
    When the operator cordons geth
    Then calls go to provider
    And calls stay with provider for 300 ms
    When the operator uncordons geth
    Then calls go to geth
    And every call was answered

  Scenario: Calls in flight leave a node that goes down
    Given a primary geth
    And a backup provider
    And the settings:
      | health.timeout | "5s" |
    And the proxy runs
    When geth answers 3000 ms late
    And a call has reached geth, which owes the answer
    And geth goes down
    Then that call is answered by provider within 1500 ms

  @testnet
  Scenario: Calls in flight leave a node that hangs, long before their attempt's deadline
    Given a primary geth
    And a backup provider
    And the settings:
      | health.interval | "30s" |
      | health.timeout  | "30s" |
    And the proxy runs
    When geth hangs
    And a call has reached geth, which owes the answer
    Then that call is answered by provider within 3500 ms
    And geth is found down: "does not answer in time"

  @testnet
  Scenario: With the default settings, a node that hangs holds no call up for more than a few seconds
    Given a primary geth
    And a backup provider
    And the default health settings
    And the proxy runs
    When geth hangs
    And a call has reached geth, which owes the answer
    Then that call is answered by provider within 3500 ms
    When geth is well again
    Then calls go to geth

  Scenario: A node that is only slow keeps its calls
    Given a primary geth
    And a backup provider
    And the settings:
      | health.timeout | "5s" |
    And the proxy runs
    When geth answers 1500 ms late
    And a call has reached geth, which owes the answer
    Then that call is answered by geth within 4000 ms
    And geth is found up

  @testnet
  Scenario: The chain does not go backwards to a backup that is behind
    Given a primary geth
    And a backup stale
    And a backup fresh
    And the proxy runs
    When stale falls 2 blocks behind
    Then stale is known to be behind
    And stale is found up
    And no client is shown a lower block than before, 5 times
    When geth goes down
    Then calls go to fresh
    And calls stay with fresh for 300 ms
    When fresh goes down
    Then calls go to stale
    When geth is well again
    Then calls go to geth

  @testnet
  Scenario: Heads as clients see them never fall through failover and failback
    Given a primary geth
    And a primary besu
    And a backup provider
    And a block every 60 ms
    And the settings:
      | health.interval | "50ms" |
    And the proxy runs
    When besu falls 2 blocks behind
    Then besu is known to be behind
    And no client is shown a lower block than before, 60 times
    When geth goes down
    Then no client is shown a lower block than before, 150 times
    When geth is well again
    Then no client is shown a lower block than before, 150 times
    And calls go to geth
    When provider goes down
    Then no client is shown a lower block than before, 60 times
    And calls go to geth

  Scenario: An error that speaks of the node goes to another node, one that speaks of the call does not
    Given a primary geth
    And a backup provider
    And the settings:
      | health.interval | "1h" |
    And the proxy runs
    When geth answers every call with error -32603 "internal error"
    And a client calls web3_clientVersion
    Then the client is answered by provider
    When geth answers every call with error 3 "execution reverted"
    And a client calls web3_clientVersion
    Then the client gets error 3
    And provider has been asked for web3_clientVersion 1 time

  Scenario: When every node fails the call, the best answer of a node goes back, not an invented one
    Given a primary geth
    And a backup provider
    And the settings:
      | health.interval | "1h" |
    And the proxy runs
    When a client calls web3_clientVersion
    Then the client is answered by geth
    When geth answers every call with error -32603 "internal error"
    And provider answers with HTTP 500
    And a client calls web3_clientVersion
    Then the client gets error -32603
